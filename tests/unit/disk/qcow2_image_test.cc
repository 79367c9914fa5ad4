// SPDX-License-Identifier: Apache-2.0

#include "src/disk/qcow2_image.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <new>
#include <thread>

#include "src/base/file.h"
#include "src/disk/disk_image.h"
#include "src/disk/inflate.h"
#include "tests/support/build.h"
#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

// The layout of the sample file.
constexpr std::uint64_t kCluster = 4096;
constexpr std::uint64_t kL1 = 3 * kCluster;
constexpr std::uint64_t kL2 = 4 * kCluster;
constexpr std::uint64_t kDiskBytes = 2 << 20;

std::string Number(std::uint64_t value) {
  std::string bytes(8, '\0');
  for (std::size_t i = 8; i-- > 0; value >>= 8) bytes[i] = static_cast<char>(value & 0xff);
  return bytes;
}

class Qcow2ImageTest : public ::testing::Test {
 protected:
  // Adds a file to the chain, below those that were added before.
  void Add(const std::string& name, DiskFormat format, const std::string& content) {
    test::WriteFile(dir_ / name, content);
    names_.emplace_back(name, format);
  }

  std::unique_ptr<DiskImage> Open(const Context& ctx = Context::Background()) {
    const base::UniqueFd dir = base::OpenDirectory(dir_.path());
    std::vector<ImageFile> files;
    for (const auto& [name, format] : names_) {
      files.push_back({base::OpenEntryAt(dir.get(), name).fd, format, name});
    }
    return OpenImage(ctx, std::move(files));
  }

  static Extents DataOf(const DiskImage& image, std::uint64_t end) {
    Extents extents;
    std::uint64_t position = 0;
    while (const auto extent = image.FindData(position, end)) {
      extents.emplace_back(extent->offset, extent->length);
      position = extent->end();
    }
    return extents;
  }
  static Extents DataOf(const DiskImage& image) {
    Extents extents;
    std::uint64_t position = 0;
    while (const auto extent = image.NextData(position)) {
      extents.emplace_back(extent->offset, extent->length);
      position = extent->end();
    }
    return extents;
  }

  static std::string Read(const DiskImage& image, std::uint64_t offset, std::size_t length) {
    std::string bytes(length, '?');
    image.Read(std::as_writable_bytes(std::span(bytes)), offset);
    return bytes;
  }

  test::TempDir dir_;
  std::vector<std::pair<std::string, DiskFormat>> names_;
};

TEST_F(Qcow2ImageTest, DataIsReadAndAllElseIsZeros) {
  const std::string content = test::Noise(3 * kCluster, 1);
  Add("a", DiskFormat::kQcow2, test::Qcow2Sample(content));
  const auto image = Open();
  EXPECT_EQ(image->size(), kDiskBytes);
  EXPECT_EQ(DataOf(*image), (Extents{{0, 3 * kCluster}}));
  EXPECT_EQ(Read(*image, 100, 2 * kCluster), content.substr(100, 2 * kCluster));
  EXPECT_EQ(Read(*image, 2 * kCluster, 2 * kCluster),
            content.substr(2 * kCluster) + std::string(kCluster, '\0'));
  EXPECT_EQ(Read(*image, kDiskBytes - 10, 10), std::string(10, '\0'));
  EXPECT_EQ(Read(*image, kDiskBytes, 0), "");
}

TEST_F(Qcow2ImageTest, NextDataRespectsItsRange) {
  Add("a", DiskFormat::kQcow2, test::Qcow2Sample(test::Noise(3 * kCluster, 1)));
  const auto image = Open();
  const auto next = image->NextData(5000);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->offset, 5000U);
  EXPECT_EQ(next->end(), 3 * kCluster);
  EXPECT_FALSE(image->NextData(3 * kCluster));
  EXPECT_FALSE(image->NextData(kDiskBytes));
  EXPECT_EQ(DataOf(*image, 6000), (Extents{{0, 6000}}));
  EXPECT_FALSE(image->FindData(5000, 5000));
}

TEST_F(Qcow2ImageTest, TheLastClusterMayBeThereInPart) {
  const std::string content = test::Noise(kCluster, 1);
  std::string file = test::Qcow2Sample(content);
  file.resize(file.size() - 1000);
  Add("a", DiskFormat::kQcow2, file);
  const auto image = Open();
  EXPECT_EQ(DataOf(*image), (Extents{{0, kCluster}}));
  EXPECT_EQ(Read(*image, 0, kCluster),
            content.substr(0, kCluster - 1000) + std::string(1000, '\0'));
  EXPECT_EQ(Read(*image, kCluster - 10, 10), std::string(10, '\0'));
}

TEST_F(Qcow2ImageTest, ReadsUnallocatedClustersFromTheBackingFile) {
  const std::string head = test::Noise(2 * kCluster, 1);
  const std::string below = test::Noise(10 * kCluster + 123, 2);
  Add("a", DiskFormat::kQcow2, test::Qcow2Sample(head, "b"));
  Add("b", DiskFormat::kRaw, below);
  std::string expected = head + below.substr(head.size());
  EXPECT_EQ(DataOf(*Open()), (Extents{{0, below.size()}}));
  expected.resize(kDiskBytes);
  EXPECT_TRUE(Read(*Open(), 0, kDiskBytes) == expected);
}

TEST_F(Qcow2ImageTest, ZeroClustersHideTheBackingFile) {
  std::string file = test::Qcow2Sample(test::Noise(kCluster, 1), "b");
  file.replace(kL2 + 2 * 8, 8, Number(1));
  Add("a", DiskFormat::kQcow2, file);
  Add("b", DiskFormat::kRaw, test::Noise(4 * kCluster, 2));
  const auto image = Open();
  EXPECT_EQ(DataOf(*image), (Extents{{0, 2 * kCluster}, {3 * kCluster, kCluster}}));
  EXPECT_EQ(Read(*image, 2 * kCluster, kCluster), std::string(kCluster, '\0'));
}

TEST_F(Qcow2ImageTest, StopsWhenCancelledAlsoWhereThereIsNoData) {
  std::string file = test::Qcow2Sample("");
  for (std::uint64_t entry = 0; entry < kCluster / 8; ++entry) {
    file.replace(kL2 + entry * 8, 8, Number(1));
  }
  Add("a", DiskFormat::kQcow2, file);
  const auto [ctx, cancel] = Context::Background().WithCancel();
  const auto image = Open(ctx);
  EXPECT_FALSE(image->NextData(0));
  cancel();
  EXPECT_MSB_ERROR(image->NextData(0), ErrorKind::kCancelled, "cancelled");
  EXPECT_MSB_ERROR(Read(*image, 0, 1), ErrorKind::kCancelled, "cancelled");
  EXPECT_MSB_ERROR(Open(ctx), ErrorKind::kCancelled, "cancelled");
}

// The search takes seconds, and must end before it is complete.
TEST_F(Qcow2ImageTest, StopsInTheMiddleOfASearchWhenCancelled) {
  test::MakeEmptyQcow2(dir_ / "a", "", 1 << 20);
  names_.emplace_back("a", DiskFormat::kQcow2);
  const auto [ctx, cancel] = Context::Background().WithCancel();
  const auto image = Open(ctx);
  const std::jthread canceller([&end = cancel] { end(); });
  EXPECT_MSB_ERROR(image->NextData(0), ErrorKind::kCancelled, "cancelled");
}

TEST_F(Qcow2ImageTest, NothingBeyondTheHeadIsSeen) {
  Add("a", DiskFormat::kQcow2, test::Qcow2Sample("", "b"));
  Add("b", DiskFormat::kRaw, test::Noise(kDiskBytes + 5000, 2));
  EXPECT_EQ(DataOf(*Open()), (Extents{{0, kDiskBytes}}));
}

TEST_F(Qcow2ImageTest, HolesOfARawFileAreNoData) {
  test::MakeSparseFile(dir_ / "b", 1 << 20, {{256 << 10, test::Noise(64 << 10, 1)}});
  Add("a", DiskFormat::kQcow2, test::Qcow2Sample("", "b"));
  names_.emplace_back("b", DiskFormat::kRaw);
  const auto image = Open();
  EXPECT_EQ(DataOf(*image), (Extents{{256 << 10, 64 << 10}}));
  // Also if asked in another order.
  EXPECT_EQ(image->NextData(300 << 10)->offset, 300U << 10);
  EXPECT_FALSE(image->NextData(400 << 10));
  EXPECT_FALSE(image->FindData(0, 100 << 10));
  EXPECT_EQ(image->NextData(0)->offset, 256U << 10);
}

TEST_F(Qcow2ImageTest, ATableThatIsAHoleIsEmpty) {
  // The L2 table is at the end of the file, which ends after the first entry.
  std::string file = test::Qcow2Sample("", "b");
  file.resize(kL2 + 8);
  Add("a", DiskFormat::kQcow2, file);
  Add("b", DiskFormat::kRaw, test::Noise(kCluster, 2));
  EXPECT_EQ(DataOf(*Open()), (Extents{{0, kCluster}}));
}

TEST_F(Qcow2ImageTest, AnL1TableMayBeAHoleButForItsLastEntry) {
  constexpr std::uint64_t kEntries = 1 << 20;
  constexpr std::uint64_t kL1AtTheEnd = 64 << 10;
  constexpr std::uint64_t kBytesPerEntry = kDiskBytes;
  const std::string content = test::Noise(kCluster, 1);
  std::string file = test::Qcow2Sample(content);
  file.replace(24, 8, Number(kEntries * kBytesPerEntry));
  file.replace(36, 4, Number(kEntries).substr(4));
  file.replace(40, 8, Number(kL1AtTheEnd));
  Add("a", DiskFormat::kQcow2, file);
  std::filesystem::resize_file(dir_ / "a", kL1AtTheEnd + kEntries * 8);
  test::PatchFile(dir_ / "a", kL1AtTheEnd + (kEntries - 1) * 8, Number(kL2));
  const auto image = Open();
  const std::uint64_t last = (kEntries - 1) * kBytesPerEntry;
  EXPECT_EQ(DataOf(*image), (Extents{{last, kCluster}}));
  EXPECT_EQ(Read(*image, last, kCluster), content);
  EXPECT_EQ(Read(*image, last / 2, 100), std::string(100, '\0'));
  // An entry after the hole may be damaged like any other.
  test::PatchFile(dir_ / "a", kL1AtTheEnd + (kEntries - 2) * 8, Number(kL2));
  EXPECT_MSB_ERROR(Open(), ErrorKind::kSnapshotIntegrity, "'a' is damaged",
                   "L2 table at offset 16384 is used twice");
}

TEST_F(Qcow2ImageTest, ChainsMustFit) {
  const auto expect_refusal = [&](ErrorKind kind, const char* message) {
    EXPECT_MSB_ERROR(Open(), kind, message);
    names_.clear();
  };
  const std::string on_b = test::Qcow2Sample("x", "b");
  expect_refusal(ErrorKind::kUnsupportedOperation, "1 to 256 files, but has 0");
  Add("a", DiskFormat::kQcow2, on_b);
  expect_refusal(ErrorKind::kSnapshotIntegrity,
                 "'a' must have no backing file, but has the backing file 'b'");
  Add("a", DiskFormat::kQcow2, on_b);
  Add("c", DiskFormat::kRaw, "x");
  expect_refusal(ErrorKind::kSnapshotIntegrity,
                 "'a' must have the backing file 'c', but has the backing file 'b'");
  Add("a", DiskFormat::kQcow2, test::Qcow2Sample("x"));
  Add("b", DiskFormat::kRaw, "x");
  expect_refusal(ErrorKind::kSnapshotIntegrity,
                 "'a' must have the backing file 'b', but has no backing file");
  Add("a", DiskFormat::kRaw, "x");
  Add("b", DiskFormat::kRaw, "x");
  expect_refusal(ErrorKind::kSnapshotIntegrity, "'a' is raw, so it cannot be backed by 'b'");
  std::string says_qcow2 = on_b;
  says_qcow2.replace(8, 8, Number(200));
  says_qcow2.replace(200, 1, "b");
  says_qcow2.replace(104, 16, std::string("\xe2\x79\x2a\xca\0\0\0\5qcow2\0\0\0", 16));
  Add("a", DiskFormat::kQcow2, says_qcow2);
  Add("b", DiskFormat::kRaw, "x");
  expect_refusal(ErrorKind::kSnapshotIntegrity,
                 "'a' must name the format raw for its backing file 'b', but names qcow2");
}

TEST_F(Qcow2ImageTest, LongChainsAreReadAndLongerOnesRefused) {
  constexpr int kFiles = 256;
  const auto name = [](int i) { return "f" + std::to_string(i); };
  for (int i = 1; i < kFiles; ++i) {
    Add(name(i), DiskFormat::kQcow2, test::Qcow2Sample("", name(i + 1)));
  }
  const std::string content = test::Noise(3 * kCluster, 5);
  Add(name(kFiles), DiskFormat::kQcow2, test::Qcow2Sample(content));
  EXPECT_EQ(DataOf(*Open()), (Extents{{0, 3 * kCluster}}));
  EXPECT_TRUE(Read(*Open(), 0, content.size()) == content);
  names_.insert(names_.begin(), {"f0", DiskFormat::kQcow2});
  test::WriteFile(dir_ / "f0", test::Qcow2Sample("", "f1"));
  EXPECT_MSB_ERROR(Open(), ErrorKind::kUnsupportedOperation, "1 to 256 files, but has 257");
}

TEST_F(Qcow2ImageTest, TablesThatAreUsedTwiceAreRefused) {
  std::string file = test::Qcow2Sample("x");
  file.replace(36, 4, std::string("\0\0\0\2", 4));
  file.replace(kL1 + 8, 8, Number(kL2));
  Add("a", DiskFormat::kQcow2, file);
  EXPECT_MSB_ERROR(Open(), ErrorKind::kSnapshotIntegrity, "'a' is damaged",
                   "L2 table at offset 16384 is used twice");
}

TEST_F(Qcow2ImageTest, DamagedEntriesAreFoundWhenRead) {
  for (const auto& [entry, reason] :
       {std::pair(std::uint64_t{1} << 40, "a data cluster is at offset 1099511627776, outside"),
        std::pair(std::uint64_t{kL2 + 512}, "not aligned to a cluster"),
        std::pair(std::uint64_t{1} << 57 | kL2, "reserved bits"),
        std::pair(std::uint64_t{1} << 62 | std::uint64_t{1} << 40,
                  "a compressed cluster is at offset 1099511627776, outside"),
        std::pair(std::uint64_t{kL2 | 2}, "reserved bits")}) {
    std::string file = test::Qcow2Sample("x");
    file.replace(kL2, 8, Number(entry));
    names_.clear();
    Add("a", DiskFormat::kQcow2, file);
    const auto image = Open();
    EXPECT_MSB_ERROR(Read(*image, 0, 1), ErrorKind::kSnapshotIntegrity, "'a' is damaged", reason);
    EXPECT_MSB_ERROR(image->NextData(0), ErrorKind::kSnapshotIntegrity, "'a' is damaged", reason);
    EXPECT_EQ(Read(*image, 1 << 20, 1), std::string(1, '\0'));
  }
}

TEST_F(Qcow2ImageTest, ThreadsMayReadConcurrently) {
  const std::string content = test::Noise(100 * kCluster, 1);
  Add("a", DiskFormat::kQcow2, test::Qcow2Sample("", "b"));
  Add("b", DiskFormat::kQcow2, test::Qcow2Sample(content));
  const auto image = Open();
  std::vector<std::jthread> threads;
  for (int n = 0; n < 4; ++n) {
    threads.emplace_back([&] {
      for (std::uint64_t at = 0; at + 5000 < content.size(); at += 777) {
        ASSERT_TRUE(Read(*image, at, 5000) == content.substr(at, 5000));
        ASSERT_TRUE(image->NextData(at));
      }
    });
  }
}

TEST(TableCacheTest, EvictsTheLeastRecentlyUsedTable) {
  constexpr std::size_t kNumbers = 1 << 17;  // 1 MiB.
  TableCache cache;
  const auto part = [&] {
    return std::make_shared<const TablePart>(TablePart{1, std::vector<std::uint64_t>(kNumbers)});
  };
  EXPECT_EQ(cache.Find({nullptr, 0}), nullptr);
  for (std::uint64_t n = 0; n < 100; ++n) {
    cache.Insert({nullptr, n}, part());
    EXPECT_NE(cache.Find({nullptr, 0}), nullptr) << n;
  }
  EXPECT_EQ(cache.Find({nullptr, 50}), nullptr);
  EXPECT_NE(cache.Find({nullptr, 99}), nullptr);
  EXPECT_EQ(cache.Find({&cache, 99}), nullptr);
  const auto kept = cache.Find({nullptr, 99});
  cache.Insert({nullptr, 99}, part());
  EXPECT_EQ(cache.Find({nullptr, 99}), kept);
}

// Returns "", or what is wrong with how Inflate fails in a process that has no memory left.
std::string InflateWithoutMemory(Qcow2Compression compression) {
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit none{1, 1};
    setrlimit(RLIMIT_AS, &none);
    for (std::size_t size = 1 << 20; size > 8; size /= 2) {
      while (std::malloc(size) != nullptr) continue;
    }
    std::array<std::byte, 4096> bytes{};
    try {
      Inflate(compression, bytes, bytes);
    } catch (const std::bad_alloc&) {
      _exit(0);
    }
    _exit(1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status)) return "crashed";
  return WEXITSTATUS(status) == 0 ? "" : "reported as damage";
}

TEST(InflateTest, OutOfMemoryIsNotReportedAsDamage) {
  if (test::HasSanitizer()) GTEST_SKIP() << "a sanitizer needs memory of its own";
  EXPECT_EQ(InflateWithoutMemory(Qcow2Compression::kZlib), "");
  EXPECT_EQ(InflateWithoutMemory(Qcow2Compression::kZstd), "");
}

}  // namespace
}  // namespace msb::disk
