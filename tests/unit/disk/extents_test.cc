// SPDX-License-Identifier: Apache-2.0

#include "src/disk/extents.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "tests/support/missing_calls.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

using test::kExtentUnit;
using test::MakeSparseFile;
using test::Noise;
using test::TempDir;

using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

Extents Find(const std::filesystem::path& path, std::uint64_t size) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ExtentReader reader(Context::Background(), fd.get(), size);
  Extents extents;
  while (const auto extent = reader.Next()) {
    EXPECT_EQ(extent->end(), extent->offset + extent->length);
    extents.emplace_back(extent->offset, extent->length);
  }
  EXPECT_FALSE(reader.Next());
  return extents;
}

std::uint64_t Count(const Context& ctx, const std::filesystem::path& path, std::uint64_t size) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return CountDataBytes(ctx, fd.get(), size);
}

TEST(ExtentsTest, FindsTheDataBetweenHoles) {
  const TempDir dir;
  MakeSparseFile(
      dir / "file", 20 * kExtentUnit,
      {{2 * kExtentUnit, Noise(kExtentUnit, 1)}, {10 * kExtentUnit, Noise(3 * kExtentUnit, 2)}});
  EXPECT_EQ(Find(dir / "file", 20 * kExtentUnit),
            (Extents{{2 * kExtentUnit, kExtentUnit}, {10 * kExtentUnit, 3 * kExtentUnit}}));
  EXPECT_EQ(Count(Context::Background(), dir / "file", 20 * kExtentUnit), 4 * kExtentUnit);
}

TEST(ExtentsTest, FindsDataAtBothEnds) {
  const TempDir dir;
  MakeSparseFile(dir / "file", 5 * kExtentUnit + 100,
                 {{0, Noise(kExtentUnit, 1)}, {5 * kExtentUnit, Noise(100, 2)}});
  EXPECT_EQ(Find(dir / "file", 5 * kExtentUnit + 100),
            (Extents{{0, kExtentUnit}, {5 * kExtentUnit, 100}}));
}

TEST(ExtentsTest, FindsNothingInAnEmptyFileOrAHole) {
  const TempDir dir;
  MakeSparseFile(dir / "empty", 0, {});
  MakeSparseFile(dir / "hole", std::uint64_t{100} << 30, {});
  EXPECT_EQ(Find(dir / "empty", 0), Extents());
  EXPECT_EQ(Find(dir / "hole", std::uint64_t{100} << 30), Extents());
  EXPECT_EQ(Count(Context::Background(), dir / "hole", std::uint64_t{100} << 30), 0U);
  MakeSparseFile(dir / "data", 100, {{0, Noise(100, 1)}});
  EXPECT_EQ(Find(dir / "data", 100), (Extents{{0, 100}}));
}

TEST(ExtentsTest, LooksNoFurtherThanTheSizeGiven) {
  const TempDir dir;
  MakeSparseFile(
      dir / "file", 10 * kExtentUnit,
      {{kExtentUnit, Noise(2 * kExtentUnit, 1)}, {8 * kExtentUnit, Noise(kExtentUnit, 2)}});
  EXPECT_EQ(Find(dir / "file", 0), Extents());
  EXPECT_EQ(Find(dir / "file", kExtentUnit), Extents());
  EXPECT_EQ(Find(dir / "file", kExtentUnit + 1), (Extents{{kExtentUnit, 1}}));
  EXPECT_EQ(Find(dir / "file", 3 * kExtentUnit), (Extents{{kExtentUnit, 2 * kExtentUnit}}));
  EXPECT_EQ(Find(dir / "file", 5 * kExtentUnit), (Extents{{kExtentUnit, 2 * kExtentUnit}}));
  EXPECT_EQ(Find(dir / "file", 8 * kExtentUnit), (Extents{{kExtentUnit, 2 * kExtentUnit}}));
}

TEST(ExtentsTest, ReadsWhereTheFileSystemDoesNotTellItsHoles) {
  const TempDir dir;
  MakeSparseFile(dir / "file", 20 * kExtentUnit + 100,
                 {{0, Noise(10, 1)},
                  {2 * kExtentUnit, Noise(kExtentUnit, 2)},
                  {10 * kExtentUnit, Noise(100, 3)}});
  MakeSparseFile(dir / "hole", 4 * kExtentUnit, {});
  for (const int error : {EINVAL, EOPNOTSUPP}) {
    EXPECT_EQ(test::RunWithout({test::NoHoles(error)},
                               [&] {
                                 std::string found;
                                 for (const auto& [offset, length] :
                                      Find(dir / "file", 20 * kExtentUnit + 100)) {
                                   found += std::to_string(offset / kExtentUnit) + "+" +
                                            std::to_string(length / kExtentUnit) + " ";
                                 }
                                 return found +
                                        std::to_string(Find(dir / "hole", 4 * kExtentUnit).size());
                               }),
              "0+1 2+1 10+1 0");
  }
}

// The files of proc(5) do not support SEEK_DATA.
TEST(ExtentsTest, TakesAFileWithoutHolesForOneExtent) {
  EXPECT_EQ(Find("/proc/self/status", 100), (Extents{{0, 100}}));
}

TEST(ExtentsTest, ReportsAFileWithoutExtents) {
  const base::UniqueFd closed;
  ExtentReader reader(Context::Background(), closed.get(), 100);
  EXPECT_MSB_ERROR(reader.Next(), ErrorKind::kIO, "the extents of an open file");
}

// Reading all of this hole takes many minutes, and RunWithout ends a process after one.
TEST(ExtentsTest, ReadingALargeHoleEndsAtTheDeadline) {
  constexpr std::uint64_t kSize = std::uint64_t{2} << 40;
  const TempDir dir;
  MakeSparseFile(dir / "hole", kSize, {});
  const auto count = [&] {
    const Context ctx = Context::Background().WithTimeout(std::chrono::milliseconds(100));
    return std::to_string(Count(ctx, dir / "hole", kSize));
  };
  EXPECT_EQ(test::RunWithout({test::NoHoles(EINVAL)}, count), "deadline exceeded");
}

TEST(ExtentsTest, StopsCountingWhenCancelled) {
  const TempDir dir;
  MakeSparseFile(dir / "file", kExtentUnit, {{0, Noise(kExtentUnit, 1)}});
  const auto [ctx, cancel] = Context::Background().WithCancel();
  cancel();
  EXPECT_MSB_ERROR(Count(ctx, dir / "file", kExtentUnit), ErrorKind::kCancelled, "cancelled");
}

}  // namespace
}  // namespace msb::disk
