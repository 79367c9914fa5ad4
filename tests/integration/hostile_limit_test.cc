// SPDX-License-Identifier: Apache-2.0
//
// Small archives that would become large: they are refused before they do.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "tests/support/fed_pipe.h"
#include "tests/support/import_home.h"
#include "tests/support/zstd_frame.h"

namespace msb::test {
namespace {

constexpr std::uint64_t kTi = std::uint64_t{1} << 40;
// kIO if there is no room: the archive may be valid, and another disk may have room for it.
constexpr auto kTooLarge = {ErrorKind::kSnapshotIntegrity, ErrorKind::kIO};

void SetSize(SampleLayout layout, std::uint64_t size, Json& manifest) {
  switch (layout) {
    case SampleLayout::kLegacy:
      manifest["upper"]["size_bytes"] = size;
      break;
    case SampleLayout::kInventory:
      manifest["state"]["upper"]["size_bytes"] = size;
      break;
    case SampleLayout::kLayered:
      manifest["state"]["virtual_size"] = size;
      manifest["state"]["layers"][0]["virtual_size"] = size;
      break;
  }
}

class HostileLimitTest : public ImportHome {
 protected:
  void SetUp() override {
    const auto free = std::filesystem::space(dir_.path()).available;
    if (free > kTi / 2) GTEST_SKIP() << "this disk has room for a TiB";
  }

  // Returns the entries before the payload, and the header of the payload with this size.
  static std::string UpToPayload(SampleLayout layout, std::uint64_t size) {
    const auto edit = [&](Json& manifest) { SetSize(layout, size, manifest); };
    SampleArchive archive =
        MakeSampleArchive(layout, {.sparse = false, .algorithm = "", .edit = edit});
    archive.entries.back().size = size;
    std::string bytes;
    for (const TarEntry& entry : archive.entries) {
      bytes += &entry == &archive.entries.back() ? TarHeader(entry) : TarBytes(entry);
    }
    return bytes;
  }
};

TEST_F(HostileLimitTest, ADenseDiskOfATebibyteThatNeverComes) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    ExpectRefused(UpToPayload(layout, kTi), kTooLarge);
    ExpectRefused(Compress(UpToPayload(layout, kTi)), kTooLarge);
  }
}

TEST_F(HostileLimitTest, ADenseDiskOfATebibyteInAFewBytes) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    ExpectRefused(StoredFrame({{.bytes = UpToPayload(layout, kTi), .zeros = kTi}}), kTooLarge);
  }
}

TEST_F(HostileLimitTest, ASparseDiskThatNoFileSystemHolds) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const std::uint64_t size :
         {(std::uint64_t{1} << 63) - 512, std::uint64_t{1} << 63, ~std::uint64_t{0} - 511}) {
      const auto edit = [&](Json& manifest) { SetSize(layout, size, manifest); };
      SampleArchive archive = MakeSampleArchive(layout, {.algorithm = "", .edit = edit});
      SCOPED_TRACE(std::to_string(size) + " for " + archive.entries[0].name);
      TarEntry& upper = archive.entries.back();
      upper.apparent_size = size;
      upper.ranges.back().offset = size;
      ExpectRefused(archive.Tar(), kTooLarge);
    }
  }
}

// SHA-256 hashes holes as zeros. Without the limit, this import would take an hour, and end with
// another error.
TEST_F(HostileLimitTest, ImportRefusesADiskThatTakesTooLongToHash) {
  const auto edit = [](Json& manifest) { SetSize(SampleLayout::kLegacy, 2 * kTi, manifest); };
  SampleArchive archive = MakeSampleArchive(SampleLayout::kLegacy, {.edit = edit});
  TarEntry& upper = archive.entries.back();
  upper.apparent_size = 2 * kTi;
  upper.ranges.back().offset = 2 * kTi;
  EXPECT_MSB_ERROR(Snapshot::Import(ctx_, Stored(archive.Tar()), "", client_),
                   ErrorKind::kSnapshotIntegrity, "exceeds the limit of ", "bytes to hash",
                   "import the archive with the program that wrote it");
}

TEST_F(HostileLimitTest, AnImageFileOfATebibyte) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleWithImage(layout);
    SCOPED_TRACE(archive.entries[0].name);
    std::string bytes;
    for (TarEntry& entry : archive.entries) {
      const bool last = &entry == &archive.entries.back();
      if (last) entry.size = kTi;
      bytes += last ? TarHeader(entry) : TarBytes(entry);
    }
    ExpectRefused(bytes, kTooLarge);
    ExpectRefused(StoredFrame({{.bytes = bytes, .zeros = kTi}}), kTooLarge);
  }
}

TEST_F(HostileLimitTest, MetadataThatIsTooLong) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive archive =
        MakeSampleArchive(layout, {.labels = {{"long", std::string(9 << 20, 'a')}}});
    SCOPED_TRACE(archive.entries[0].name.substr(0, 80));
    ExpectRefused(archive.Tar());
    ExpectRefused(Compress(archive.Tar()));
    const std::string header = TarHeader({.name = archive.entries[0].name, .size = kTi});
    ExpectRefused(StoredFrame({{.bytes = header, .zeros = kTi}}));
  }
}

TEST_F(HostileLimitTest, AnInventoryThatIsTooLong) {
  for (const SampleLayout layout : {SampleLayout::kInventory, SampleLayout::kLayered}) {
    const SampleArchive archive = MakeSampleArchive(layout);
    SCOPED_TRACE(archive.entries[0].name);
    Json inventory = archive.Inventory();
    inventory["suggested_name"] = std::string(17 << 20, 'a');
    ExpectRefused(archive.TarWith(inventory));
    std::string bytes;
    for (const TarEntry& entry : archive.entries) bytes += TarBytes(entry);
    bytes += TarHeader({.name = "archive.json", .size = kTi});
    ExpectRefused(StoredFrame({{.bytes = bytes, .zeros = kTi}}));
  }
}

TEST_F(HostileLimitTest, MetadataThatIsLongInSum) {
  constexpr std::uint64_t kEach = 8 << 20;
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive archive = MakeSampleArchive(layout);
    SCOPED_TRACE(archive.entries[0].name);
    std::vector<FramePart> parts(1);
    for (const TarEntry& entry : archive.entries) parts[0].bytes += TarBytes(entry);
    const std::string cache = layout == SampleLayout::kLegacy ? "cache" : "images";
    for (int i = 0; i < 5000; ++i) {
      const std::string name = fmt::format("{}/manifests/{:064x}.json", cache, i);
      parts.push_back({.bytes = TarHeader({.name = name, .size = kEach}), .zeros = kEach});
    }
    ExpectRefused(StoredFrame(parts), kTooLarge);
  }
}

TEST_F(HostileLimitTest, ImportRefusesMoreMetadataThanItKeepsInMemory) {
  const SampleArchive archive = MakeSampleArchive(SampleLayout::kInventory);
  std::string bytes;
  for (const TarEntry& entry : archive.entries) bytes += TarBytes(entry);
  const std::string content(8 << 20, 'a');
  for (int i = 0; i < 7; ++i) {
    bytes +=
        TarBytes({.name = fmt::format("images/manifests/{:064x}.json", i), .content = content});
  }
  EXPECT_MSB_ERROR(Import(bytes), ErrorKind::kSnapshotIntegrity,
                   "exceeds the limit of 50331648 bytes of manifests and image metadata",
                   "import the archive with the program that wrote it");
}

// Directories are the only entries that do not count against another limit first.
TEST_F(HostileLimitTest, ImportRefusesTooManyEntries) {
  std::string bytes;
  for (int i = 0; i <= 1 << 14; ++i) {
    bytes += TarBytes({.name = fmt::format("sha256-{:016x}/", i), .type = '5'});
  }
  EXPECT_MSB_ERROR(Import(bytes), ErrorKind::kSnapshotIntegrity,
                   "exceeds the limit of 16384 entries");
}

// Each entry has a name of its own, which an image file may have.
TEST_F(HostileLimitTest, ImportRefusesAMillionEntriesEarly) {
  const SampleArchive archive = MakeSampleArchive(SampleLayout::kInventory);
  std::atomic<int> written = 0;
  const FedPipe pipe([&](const FedPipe::Write& write) {
    for (const TarEntry& entry : archive.entries) write(TarBytes(entry));
    for (int i = 0; i < 1'000'000; i += 64) {
      std::string entries;
      for (int j = i; j < i + 64; ++j) {
        entries += TarBytes(
            {.name = fmt::format("images/layers/sha256_{:064x}.erofs", j), .content = "x"});
      }
      if (!write(entries)) return;
      written += 64;
    }
  });
  ExpectPathRefused(pipe.path(), {ErrorKind::kSnapshotIntegrity});
  // The limit on image files, plus what is read ahead: 8 MiB of 1 KiB entries, and the pipe.
  EXPECT_LT(written, 2048 + 3 * 8192);
}

}  // namespace
}  // namespace msb::test
