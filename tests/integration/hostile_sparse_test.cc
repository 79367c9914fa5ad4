// SPDX-License-Identifier: Apache-2.0
//
// Sparse entries whose map is not a valid map of their file.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/import_home.h"

namespace msb::test {
namespace {

constexpr std::uint64_t kFile = 144 << 10;  // Size of a sample's upper in bytes.
constexpr std::uint64_t kMax = ~std::uint64_t{0};
constexpr std::uint64_t kKi = 1 << 10;

class HostileSparseTest : public ImportHome {
 protected:
  // Expects an archive with this map to be refused. The inventory agrees with the map. The entry
  // stores as many bytes as the map needs, if that is a sane number, or the given number of bytes.
  void ExpectMapRefused(const std::vector<TarRange>& ranges, std::uint64_t apparent_size = kFile,
                        std::optional<std::uint64_t> stored = {}) {
    for (const SampleLayout layout : kSampleLayouts) {
      // No integrity is recorded, so that only the map can be the reason.
      SampleArchive archive = MakeSampleArchive(layout, {.algorithm = ""});
      std::string map;
      std::uint64_t sum = 0;
      for (const TarRange& range : ranges) {
        map += fmt::format(" {}+{}", range.offset, range.length);
        sum += range.length;
      }
      SCOPED_TRACE(archive.entries[0].name + map);
      TarEntry& upper = archive.entries.back();
      upper.ranges = ranges;
      upper.apparent_size = apparent_size;
      upper.content =
          Noise(static_cast<std::size_t>(stored.value_or(sum <= kFile * 4 ? sum : kFile)), 3);
      ExpectRefused(archive.Tar(), {ErrorKind::kSnapshotIntegrity});
    }
  }

  // Expects an archive to be refused in which bytes overwrite a part of the payload's headers and
  // all else is valid. Uses the layout without hashes of the map.
  void ExpectPatchRefused(std::size_t offset, const std::string& bytes) {
    SampleArchive archive = MakeSampleArchive(SampleLayout::kLegacy, {.algorithm = ""});
    SCOPED_TRACE("'" + bytes + "' at " + std::to_string(offset));
    archive.entries.back().patches = {{offset, bytes}};
    ExpectRefused(archive.Tar());
  }
};

TEST_F(HostileSparseTest, RangesThatOverlapOrAreNotInOrder) {
  const std::vector<std::vector<TarRange>> maps = {{{0, 4 * kKi}, {2 * kKi, 4 * kKi}, {kFile, 0}},
                                                   {{0, 4 * kKi}, {0, 4 * kKi}, {kFile, 0}},
                                                   {{0, 16 * kKi}, {4 * kKi, 4 * kKi}, {kFile, 0}},
                                                   {{8 * kKi, 4 * kKi}, {0, 4 * kKi}, {kFile, 0}},
                                                   {{kFile, 0}, {0, 4 * kKi}},
                                                   {{8 * kKi, 4 * kKi}, {kFile, 0}, {0, 4 * kKi}}};
  for (const auto& map : maps) {
    SCOPED_TRACE(&map - maps.data());
    ExpectMapRefused(map);
  }
}

// Writers merge adjacent ranges, because the hashes of an archive need one form of each map.
TEST_F(HostileSparseTest, RangesThatTouch) {
  ExpectMapRefused({{0, 4 * kKi}, {4 * kKi, 4 * kKi}, {kFile, 0}});
  ExpectMapRefused({{8 * kKi, 4 * kKi}, {12 * kKi, 512}, {kFile, 0}});
}

TEST_F(HostileSparseTest, RangesBeyondTheEnd) {
  ExpectMapRefused({{kFile - 4 * kKi, 8 * kKi}});
  ExpectMapRefused({{kFile, 4 * kKi}});
  ExpectMapRefused({{kFile + 4 * kKi, 4 * kKi}});
  ExpectMapRefused({{0, 4 * kKi}, {kFile, 0}}, 2 * kKi);
  ExpectMapRefused({{std::uint64_t{1} << 40, 4 * kKi}, {kFile, 0}});
}

// A range of length zero, which ends a trailing hole, elsewhere than at the end of the file.
TEST_F(HostileSparseTest, ATrailingHoleThatEndsElsewhere) {
  ExpectMapRefused({{0, 4 * kKi}, {kFile + 512, 0}});
  ExpectMapRefused({{0, 4 * kKi}, {kFile * 2, 0}});
  ExpectMapRefused({{0, 4 * kKi}, {kMax, 0}});
  ExpectMapRefused({{0, 4 * kKi}, {kFile - 4 * kKi, 4 * kKi}, {kFile - 8 * kKi, 0}});
  // It is the last of four ranges in the extension of a sample.
  for (std::size_t i = 72; i < 95; ++i) {
    if (i != 83) ExpectPatchRefused(kTarRecordBytes + i, i < 83 ? "7" : "1");
  }
}

TEST_F(HostileSparseTest, OffsetsAndLengthsThatOverflow) {
  for (const auto& [offset, length] :
       std::vector<std::pair<std::uint64_t, std::uint64_t>>{{kMax, 1},
                                                            {kMax - 511, 1024},
                                                            {kMax - 4095, 4096},
                                                            {4096, kMax - 4095},
                                                            {4096, kMax},
                                                            {std::uint64_t{1} << 63, 512},
                                                            {(std::uint64_t{1} << 63) - 512, 512},
                                                            {512, std::uint64_t{1} << 63},
                                                            {512, (std::uint64_t{1} << 63) - 1}}) {
    SCOPED_TRACE(std::to_string(offset) + " + " + std::to_string(length));
    ExpectMapRefused({{offset, length}});
    ExpectMapRefused({{0, 512}, {offset, length}});
    ExpectMapRefused({{0, 512}, {offset, length}, {kFile, 0}});
  }
  // Their sum wraps around to what is stored.
  ExpectMapRefused({{0, std::uint64_t{1} << 63}, {0, std::uint64_t{1} << 63}, {0, 512}}, kFile,
                   512);
}

TEST_F(HostileSparseTest, MalformedNumbers) {
  for (const std::string& field :
       {TarBase256(-1), TarBase256(-4096), TarBase256(INT64_MIN), std::string(12, '\xff'),
        std::string("-0000010000\0", 12), std::string("garbage12345"), std::string(12, ' '),
        std::string("0000001999x\0", 12), std::string("\x80") + std::string(11, '\x7f')}) {
    ExpectPatchRefused(kTarSparseMap, field);
    ExpectPatchRefused(kTarSparseMap + 12, field);
    ExpectPatchRefused(kTarSparseMap + 24, field);
    ExpectPatchRefused(kTarRecordBytes, field);
    ExpectPatchRefused(kTarRecordBytes + 12, field);
    ExpectPatchRefused(kTarRealSize, field);
  }
}

TEST_F(HostileSparseTest, MoreOrLessStoredThanTheMapHas) {
  const std::vector<TarRange> map = {{0, 4 * kKi}, {8 * kKi, 4 * kKi}, {kFile, 0}};
  for (const std::uint64_t stored : {0U, 512U, 4096U, 8191U, 8193U, 8704U, 12288U}) {
    SCOPED_TRACE(stored);
    ExpectMapRefused(map, kFile, stored);
  }
}

TEST_F(HostileSparseTest, SizesOtherThanTheManifests) {
  for (const std::uint64_t size : {std::uint64_t{0}, kFile - 512, kFile - 1, kFile + 1, kFile + 512,
                                   kFile * 2, std::uint64_t{1} << 40, (std::uint64_t{1} << 53) - 1,
                                   (std::uint64_t{1} << 63) - 512, std::uint64_t{1} << 63, kMax}) {
    SCOPED_TRACE(size);
    ExpectMapRefused({{0, 4 * kKi}, {size, 0}}, size);
  }
}

TEST_F(HostileSparseTest, AnExtensionThatIsNotThere) {
  ExpectPatchRefused(kTarRecordBytes + kTarExtensionIsExtended, "\x01");
  ExpectPatchRefused(kTarRecordBytes + kTarExtensionIsExtended, "\xff");
  ExpectPatchRefused(kTarIsExtended, std::string(1, '\0'));
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleArchive(layout, {.algorithm = ""});
    SCOPED_TRACE(archive.entries[0].name);
    // The flag is set at the end of the data, and no record follows.
    archive.entries.back().patches = {{kTarRecordBytes + kTarExtensionIsExtended, "\x01"}};
    std::string bytes;
    for (const TarEntry& entry : archive.entries) {
      bytes += entry.type == 'S' ? TarHeader(entry) : TarBytes(entry);
    }
    ExpectRefused(bytes);
    ExpectRefused(bytes + TarEnd());
    // Extension records without end.
    std::string record(kTarRecordBytes, '\0');
    record[kTarExtensionIsExtended] = 1;
    for (int i = 0; i < 30'000; ++i) bytes += record;
    ExpectRefused(bytes);
  }
}

TEST_F(HostileSparseTest, MoreRangesThanAFileMayHave) {
  static constexpr std::size_t kTooMany = (1 << 18) + 1;
  static constexpr std::uint64_t kSize = kTooMany * 1024;
  const auto set_size = [](Json& manifest) { manifest["upper"]["size_bytes"] = kSize; };
  SampleArchive archive =
      MakeSampleArchive(SampleLayout::kLegacy, {.algorithm = "", .edit = set_size});
  TarEntry& upper = archive.entries.back();
  upper.ranges.clear();
  for (std::size_t i = 0; i < kTooMany; ++i) upper.ranges.push_back({i * 1024, 512});
  upper.ranges.push_back({kSize, 0});
  upper.apparent_size = kSize;
  upper.content.assign(kTooMany * 512, 'x');
  ExpectRefused(archive.Tar());
}

// Disks and images may have holes, but metadata, which is read as text, may not.
TEST_F(HostileSparseTest, SparseMetadata) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive sound = MakeSampleWithImage(layout);
    for (std::size_t i = 0; i < sound.entries.size(); ++i) {
      if (!sound.entries[i].name.ends_with(".json")) continue;
      SCOPED_TRACE(sound.entries[i].name);
      SampleArchive archive = sound;
      const std::uint64_t size = archive.entries[i].content.size();
      MakeSparse(archive.entries[i], {{0, size}});
      ExpectRefused(archive.Tar());
    }
  }
}

}  // namespace
}  // namespace msb::test
