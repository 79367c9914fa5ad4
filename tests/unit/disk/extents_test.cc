#include "src/disk/extents.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "tests/support/missing_calls.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

using test::MakeSparseFile;
using test::Noise;
using test::TempDir;

using Extents = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

// Holes begin and end at multiples of this on all file systems that the tests have run on.
constexpr std::uint64_t kUnit = 64 << 10;

Extents Find(const std::filesystem::path& path, std::uint64_t size) {
  const base::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ExtentReader reader(fd.get(), size);
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
  MakeSparseFile(dir / "file", 20 * kUnit,
                 {{2 * kUnit, Noise(kUnit, 1)}, {10 * kUnit, Noise(3 * kUnit, 2)}});
  EXPECT_EQ(Find(dir / "file", 20 * kUnit), (Extents{{2 * kUnit, kUnit}, {10 * kUnit, 3 * kUnit}}));
  EXPECT_EQ(Count(Context::Background(), dir / "file", 20 * kUnit), 4 * kUnit);
}

TEST(ExtentsTest, FindsDataAtBothEnds) {
  const TempDir dir;
  MakeSparseFile(dir / "file", 5 * kUnit + 100, {{0, Noise(kUnit, 1)}, {5 * kUnit, Noise(100, 2)}});
  EXPECT_EQ(Find(dir / "file", 5 * kUnit + 100), (Extents{{0, kUnit}, {5 * kUnit, 100}}));
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
  MakeSparseFile(dir / "file", 10 * kUnit,
                 {{kUnit, Noise(2 * kUnit, 1)}, {8 * kUnit, Noise(kUnit, 2)}});
  EXPECT_EQ(Find(dir / "file", 0), Extents());
  EXPECT_EQ(Find(dir / "file", kUnit), Extents());
  EXPECT_EQ(Find(dir / "file", kUnit + 1), (Extents{{kUnit, 1}}));
  EXPECT_EQ(Find(dir / "file", 3 * kUnit), (Extents{{kUnit, 2 * kUnit}}));
  EXPECT_EQ(Find(dir / "file", 5 * kUnit), (Extents{{kUnit, 2 * kUnit}}));
  EXPECT_EQ(Find(dir / "file", 8 * kUnit), (Extents{{kUnit, 2 * kUnit}}));
}

TEST(ExtentsTest, ReadsWhereTheFileSystemDoesNotTellItsHoles) {
  const TempDir dir;
  MakeSparseFile(dir / "file", 20 * kUnit + 100,
                 {{0, Noise(10, 1)}, {2 * kUnit, Noise(kUnit, 2)}, {10 * kUnit, Noise(100, 3)}});
  MakeSparseFile(dir / "hole", 4 * kUnit, {});
  for (const int error : {EINVAL, EOPNOTSUPP}) {
    EXPECT_EQ(test::RunWithout(
                  {test::NoHoles(error)},
                  [&] {
                    std::string found;
                    for (const auto& [offset, length] : Find(dir / "file", 20 * kUnit + 100)) {
                      found += std::to_string(offset / kUnit) + "+" +
                               std::to_string(length / kUnit) + " ";
                    }
                    return found + std::to_string(Find(dir / "hole", 4 * kUnit).size());
                  }),
              "0+1 2+1 10+1 0");
  }
}

// The files of proc(5) do not support SEEK_DATA.
TEST(ExtentsTest, TakesAFileWithoutHolesForOneExtent) {
  EXPECT_EQ(Find("/proc/self/status", 100), (Extents{{0, 100}}));
}

TEST(ExtentsTest, SaysThatAFileHasNoExtents) {
  const base::UniqueFd closed;
  ExtentReader reader(closed.get(), 100);
  EXPECT_MSB_ERROR(reader.Next(), ErrorKind::kIO);
}

TEST(ExtentsTest, StopsCountingWhenCancelled) {
  const TempDir dir;
  MakeSparseFile(dir / "file", kUnit, {{0, Noise(kUnit, 1)}});
  const auto [ctx, cancel] = Context::Background().WithCancel();
  cancel();
  EXPECT_MSB_ERROR(Count(ctx, dir / "file", kUnit), ErrorKind::kCancelled);
}

}  // namespace
}  // namespace msb::disk
