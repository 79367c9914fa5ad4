// SPDX-License-Identifier: Apache-2.0

#include "src/archive/sparse_map.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using disk::Extent;
using test::Noise;
using test::TempDir;

// (offset, length)
using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

constexpr std::uint64_t kKi = 1 << 10;

Ranges Pairs(const std::vector<Extent>& extents) {
  Ranges pairs;
  for (const Extent& extent : extents) pairs.emplace_back(extent.offset, extent.length);
  return pairs;
}

SparseMap Map(const Ranges& extents, std::uint64_t size) {
  const auto next = [rest = extents.begin(), end = extents.end()]() mutable {
    if (rest == end) return std::optional<Extent>();
    const auto [offset, length] = *rest++;
    return std::optional(Extent{offset, length});
  };
  return MapExtents(next, size);
}

Ranges RangesOf(const Ranges& extents, std::uint64_t size) {
  return Pairs(Map(extents, size).ranges);
}

SparseMap MapPath(const fs::path& path, std::uint64_t size) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return MapFile(Context::Background(), fd.get(), size);
}

TEST(SparseMapTest, RangesAreWholeTarBlocks) {
  EXPECT_EQ(RangesOf({{700, 100}}, 10'000), (Ranges{{512, 512}}));
  EXPECT_EQ(RangesOf({{0, 1}}, 10'000), (Ranges{{0, 512}}));
  EXPECT_EQ(RangesOf({{1023, 2}}, 10'000), (Ranges{{512, 1024}}));
  EXPECT_EQ(RangesOf({{1024, 512}}, 10'000), (Ranges{{1024, 512}}));
}

TEST(SparseMapTest, RangesThatTouchOrShareABlockAreOne) {
  EXPECT_EQ(RangesOf({{0, 512}, {512, 512}}, 10'000), (Ranges{{0, 1024}}));
  EXPECT_EQ(RangesOf({{0, 10}, {20, 10}, {500, 600}}, 10'000), (Ranges{{0, 1536}}));
  EXPECT_EQ(RangesOf({{0, 513}, {1023, 1}}, 10'000), (Ranges{{0, 1024}}));
  EXPECT_EQ(RangesOf({{0, 512}, {1024, 512}}, 10'000), (Ranges{{0, 512}, {1024, 512}}));
}

TEST(SparseMapTest, TheLastRangeEndsWithTheFile) {
  const SparseMap map = Map({{0, 512}, {4096, 904}}, 5000);
  EXPECT_EQ(Pairs(map.ranges), (Ranges{{0, 512}, {4096, 904}}));
  EXPECT_EQ(map.StoredBytes(), 1416U);
  EXPECT_TRUE(map.HasHoles());
  EXPECT_EQ(Pairs(map.Listed()), Pairs(map.ranges));
  // Not rounded up to the size of a block.
  EXPECT_EQ(RangesOf({{4096, 100}}, 4300), (Ranges{{4096, 204}}));
  EXPECT_EQ(RangesOf({{4608, 1}}, 4609), (Ranges{{4608, 1}}));
}

TEST(SparseMapTest, AFileWithoutHolesIsOneRange) {
  const SparseMap map = Map({{0, 3000}, {3000, 2000}}, 5000);
  EXPECT_EQ(Pairs(map.ranges), (Ranges{{0, 5000}}));
  EXPECT_FALSE(map.HasHoles());
  EXPECT_EQ(map.StoredBytes(), 5000U);
  EXPECT_EQ(Pairs(map.Listed()), (Ranges{{0, 5000}}));
}

TEST(SparseMapTest, AnEmptyFileHasNoHolesAndAHoleNoRanges) {
  const SparseMap empty = Map({}, 0);
  EXPECT_TRUE(empty.ranges.empty());
  EXPECT_FALSE(empty.HasHoles());
  EXPECT_TRUE(empty.Listed().empty());

  const SparseMap hole = Map({}, 777);
  EXPECT_TRUE(hole.ranges.empty());
  EXPECT_TRUE(hole.HasHoles());
  EXPECT_EQ(hole.StoredBytes(), 0U);
  EXPECT_EQ(Pairs(hole.Listed()), (Ranges{{777, 0}}));
}

TEST(SparseMapTest, AHoleAtTheEndIsListedAndNoRange) {
  const SparseMap map = Map({{512, 512}}, 5000);
  EXPECT_EQ(Pairs(map.ranges), (Ranges{{512, 512}}));
  EXPECT_EQ(Pairs(map.Listed()), (Ranges{{512, 512}, {5000, 0}}));
  // Also if the hole is shorter than a block.
  EXPECT_EQ(Pairs(Map({{0, 512}}, 513).Listed()), (Ranges{{0, 512}, {513, 0}}));
}

TEST(SparseMapTest, MapsTheExtentsOfAFile) {
  const TempDir dir;
  const std::uint64_t size = 300'001;
  test::MakeSparseFile(dir / "file", size, {{0, Noise(5000, 1)}, {100'000, "x"}, {size - 1, "x"}});
  const SparseMap map = MapPath(dir / "file", size);
  EXPECT_EQ(Pairs(map.ranges), test::ExtentsOf(dir / "file"));
  EXPECT_EQ(map.ranges.size(), 3U);
  EXPECT_EQ(map.ranges.back().end(), size);
  EXPECT_EQ(map.size, size);

  // Maps no more than the given size.
  const SparseMap part = MapPath(dir / "file", 4000);
  EXPECT_EQ(Pairs(part.ranges), (Ranges{{0, 4000}}));
  EXPECT_EQ(part.size, 4000U);

  test::MakeSparseFile(dir / "hole", 1 << 20, {});
  EXPECT_EQ(Pairs(MapPath(dir / "hole", 1 << 20).Listed()), (Ranges{{1 << 20, 0}}));
  EXPECT_MSB_ERROR(MapPath(dir / "absent", 1), ErrorKind::kIO, "the extents of an open file");
}

// Extents of 4 KiB, one after each of these holes, and a hole at the end.
struct Layout {
  explicit Layout(const std::vector<std::uint64_t>& holes) {
    for (const std::uint64_t hole : holes) {
      extents.emplace_back(size + hole, 4 * kKi);
      size += hole + 4 * kKi;
    }
    size += 4 * kKi;
  }

  Ranges extents;
  std::uint64_t size = 0;
};

bool Covers(const SparseMap& map, const Ranges& extents) {
  auto range = map.ranges.begin();
  for (const auto& [offset, length] : extents) {
    while (range != map.ranges.end() && range->end() < offset + length) ++range;
    if (range == map.ranges.end() || range->offset > offset) return false;
  }
  return true;
}

TEST(SparseMapTest, AsManyRangesAsAMapMayHaveStayAsTheyAre) {
  const Layout layout(std::vector<std::uint64_t>(kMaxSparseRanges - 1, 4 * kKi));
  const SparseMap map = Map(layout.extents, layout.size);
  EXPECT_TRUE(Pairs(map.ranges) == layout.extents);
  EXPECT_EQ(map.Listed().size(), kMaxSparseRanges);
}

TEST(SparseMapTest, OfTooManyRangesThoseWithSmallHolesBetweenThemAreJoined) {
  // Every second hole is small. Joining the ranges around these halves their number.
  std::vector<std::uint64_t> holes(kMaxSparseRanges + 1000, 4 * kKi);
  for (std::size_t i = 0; i < holes.size(); i += 2) holes[i] = std::uint64_t{1} << 30;
  const Layout layout(holes);
  const SparseMap map = Map(layout.extents, layout.size);
  EXPECT_LE(map.Listed().size(), kMaxSparseRanges);
  EXPECT_EQ(map.ranges.size(), (layout.extents.size() + 1) / 2);
  EXPECT_TRUE(Covers(map, layout.extents));
  EXPECT_EQ(map.StoredBytes(), map.ranges.size() * 12 * kKi);
}

TEST(SparseMapTest, OfTooManyEqualHolesSomeStay) {
  const Layout layout(std::vector<std::uint64_t>(3 * kMaxSparseRanges, 60 * kKi));
  const SparseMap map = Map(layout.extents, layout.size);
  EXPECT_LE(map.Listed().size(), kMaxSparseRanges);
  EXPECT_GE(map.ranges.size(), kMaxSparseRanges / 2 - 1);
  EXPECT_TRUE(Covers(map, layout.extents));
}

TEST(SparseMapTest, StopsWhenCancelled) {
  const test::TempDir dir;
  test::MakeSparseFile(dir / "file", 64 * kKi, {});
  const base::UniqueFd fd(open((dir / "file").c_str(), O_RDONLY | O_CLOEXEC));
  const auto [ctx, cancel] = Context::Background().WithCancel();
  cancel();
  EXPECT_MSB_ERROR(MapFile(ctx, fd.get(), 64 * kKi), ErrorKind::kCancelled, "cancelled");
}

}  // namespace
}  // namespace msb::archive
