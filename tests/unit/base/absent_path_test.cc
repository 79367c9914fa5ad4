// SPDX-License-Identifier: Apache-2.0

#include "src/base/absent_path.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;

class AbsentPathTest : public ::testing::Test {
 protected:
  AbsentPathTest() {
    test::WriteFile(dir_ / "file", "x");
    fs::create_symlink("file", dir_ / "link");
    fs::create_symlink("nowhere/at-all", dir_ / "dangling");
    fs::create_symlink("dangling", dir_ / "chain");
    fs::create_symlink("loop", dir_ / "loop");
  }

  test::TempDir dir_;
};

TEST_F(AbsentPathTest, TheNearestExistingPathIsThePathItselfIfSomethingIsThere) {
  for (const char* name : {"file", "link", "dangling", "loop"}) {
    EXPECT_EQ(NearestExisting(dir_ / name), dir_ / name);
  }
}

TEST_F(AbsentPathTest, TheNearestExistingPathIsElseADirectoryAboveIt) {
  EXPECT_EQ(NearestExisting(dir_ / "absent"), dir_.path());
  EXPECT_EQ(NearestExisting(dir_ / "a/b/c"), dir_.path());
  EXPECT_EQ(NearestExisting(dir_ / "dangling/b/c"), dir_ / "dangling");
  EXPECT_EQ(NearestExisting("/absent-from-the-root/a"), "/");
}

TEST_F(AbsentPathTest, NothingIsAboveARelativePathWhoseFirstComponentIsAbsent) {
  EXPECT_EQ(NearestExisting("absent-here/a"), "");
  EXPECT_EQ(NearestExisting(""), "");
  EXPECT_EQ(DanglingLinkIn("absent-here/a"), "");
}

TEST_F(AbsentPathTest, FindsTheLinkThatLeadsNowhere) {
  EXPECT_EQ(DanglingLinkIn(dir_ / "dangling"), dir_ / "dangling");
  EXPECT_EQ(DanglingLinkIn(dir_ / "dangling/a/b"), dir_ / "dangling");
  EXPECT_EQ(DanglingLinkIn(dir_ / "chain/a"), dir_ / "chain");
  EXPECT_EQ(DanglingLinkIn(dir_ / "loop"), dir_ / "loop");
}

TEST_F(AbsentPathTest, FindsNoLinkIfThePathExistsOrIsAbsentForAnotherReason) {
  for (const char* name : {"file", "link", "link/a", "absent", "absent/a"}) {
    EXPECT_EQ(DanglingLinkIn(dir_ / name), "") << name;
  }
}

}  // namespace
}  // namespace msb::base
