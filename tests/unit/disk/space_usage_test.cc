// SPDX-License-Identifier: Apache-2.0

#include "src/disk/space_usage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::disk {
namespace {

namespace fs = std::filesystem;
using test::Noise;

class SpaceUsageTest : public ::testing::Test {
 protected:
  SpaceUsageTest() { fs::create_directories(dir_ / "a/b"); }

  SpaceUsage Measure() {
    const base::UniqueFd dir = base::OpenDirectory(dir_ / "a");
    return MeasureDirectory(ctx_, dir.get());
  }

  // Returns what the file or directory occupies, as stat(2) reports it.
  std::uint64_t Blocks(const fs::path& path) {
    struct stat st {};
    EXPECT_EQ(lstat(path.c_str(), &st), 0);
    return static_cast<std::uint64_t>(st.st_blocks) * 512;
  }

  const Context ctx_ = Context::Background();
  test::TempDir dir_;
};

TEST_F(SpaceUsageTest, CountsDirectoriesAsAllocatedOnly) {
  const SpaceUsage usage = Measure();
  EXPECT_EQ(usage.apparent, 0U);
  EXPECT_EQ(usage.allocated, Blocks(dir_ / "a") + Blocks(dir_ / "a/b"));
  EXPECT_EQ(usage.exclusive, usage.allocated);
}

TEST_F(SpaceUsageTest, CountsFilesAtEveryDepthWithoutTheirHoles) {
  test::MakeSparseFile(dir_ / "a/b/sparse", 64 << 20, {{0, Noise(70'000, 1)}});
  test::WriteFile(dir_ / "a/file", Noise(5000, 2));
  const SpaceUsage usage = Measure();
  EXPECT_EQ(usage.apparent, (64U << 20) + 5000U);
  EXPECT_EQ(usage.allocated, Blocks(dir_ / "a") + Blocks(dir_ / "a/b") +
                                 Blocks(dir_ / "a/b/sparse") + Blocks(dir_ / "a/file"));
  EXPECT_LT(usage.allocated, 1U << 20);
}

TEST_F(SpaceUsageTest, LeavesOutOfExclusiveWhatAnotherLinkKeeps) {
  test::WriteFile(dir_ / "a/kept", Noise(100'000, 1));
  test::WriteFile(dir_ / "a/twice", Noise(200'000, 2));
  fs::create_hard_link(dir_ / "a/kept", dir_ / "elsewhere");
  fs::create_hard_link(dir_ / "a/twice", dir_ / "a/b/again");
  const SpaceUsage usage = Measure();
  EXPECT_EQ(usage.apparent, 300'000U);
  EXPECT_EQ(usage.exclusive, usage.allocated - Blocks(dir_ / "a/kept"));
}

TEST_F(SpaceUsageTest, IgnoresLinksAndSpecialFiles) {
  test::WriteFile(dir_ / "outside", Noise(100'000, 1));
  fs::create_symlink(dir_ / "outside", dir_ / "a/link");
  fs::create_directory_symlink(dir_.path(), dir_ / "a/b/up");
  ASSERT_EQ(mkfifo((dir_ / "a/fifo").c_str(), 0600), 0);
  EXPECT_EQ(Measure().apparent, 0U);
}

TEST_F(SpaceUsageTest, CanBeCancelled) {
  test::WriteFile(dir_ / "a/file", "text");
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  const base::UniqueFd dir = base::OpenDirectory(dir_ / "a");
  EXPECT_MSB_ERROR(MeasureDirectory(ctx, dir.get()), ErrorKind::kCancelled, "cancel");
}

TEST_F(SpaceUsageTest, AFileOfManyExtentsSharesNothing) {
  std::vector<std::pair<std::uint64_t, std::string>> data;
  // More extents than are read at once.
  for (std::uint64_t i = 0; i < 600; ++i) data.emplace_back(i * 2 * test::kExtentUnit, "x");
  test::MakeSparseFile(dir_ / "a/file", 1200 * test::kExtentUnit, data);
  const base::UniqueFd dir = base::OpenDirectory(dir_ / "a");
  const base::Entry file = base::OpenEntryAt(dir.get(), "file");
  EXPECT_EQ(CountSharedBytes(ctx_, file.fd.get()), 0U);
}

}  // namespace
}  // namespace msb::disk
