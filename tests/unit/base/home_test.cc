// SPDX-License-Identifier: Apache-2.0

#include "src/base/home.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/sqlite.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;

class HomeTest : public ::testing::Test {
 protected:
  HomeTest() { fs::create_directories(home_ / "snapshots"); }

  test::TempDir dir_;
  const fs::path home_ = dir_ / "home";
  const Home own_{{.home = home_}};
};

TEST_F(HomeTest, DirectoriesAreInTheHomeUnlessTheyAreGiven) {
  EXPECT_EQ(own_.sandboxes_dir(), home_ / "sandboxes");
  EXPECT_EQ(own_.DisksDir(), home_ / "cache/disks");
  const Home other({.home = home_ / "a/..", .snapshots = dir_ / "snaps/", .cache = dir_ / "fast"});
  EXPECT_EQ(other.path(), home_);
  EXPECT_EQ(other.snapshots_dir(), dir_ / "snaps");
  EXPECT_EQ(other.sandboxes_dir(), home_ / "sandboxes");
  EXPECT_EQ(other.DisksDir(), dir_ / "fast/disks");
}

TEST_F(HomeTest, KnowsHomesByTheirDatabases) {
  EXPECT_FALSE(Home::IsHome(home_));
  test::WriteFile(own_.OwnDatabase(), "x");
  EXPECT_TRUE(Home::IsHome(home_));
  fs::rename(own_.OwnDatabase(), own_.RuntimeDatabase());
  EXPECT_TRUE(Home::IsHome(home_));
  fs::create_directory_symlink(home_, dir_ / "link");
  EXPECT_TRUE(own_.IsAt(dir_ / "link"));
  EXPECT_FALSE(own_.IsAt(dir_.path()));
}

TEST_F(HomeTest, RespellsOnlyPathsThroughLinks) {
  fs::create_directories(home_ / "snapshots/a");
  fs::create_directory_symlink(home_, dir_ / "link");
  fs::create_directory_symlink(home_ / "snapshots", dir_ / "snaps");
  fs::create_directory_symlink(home_ / "snapshots/a", dir_ / "a");
  EXPECT_EQ(own_.Respell(dir_ / "link/snapshots/a"), home_ / "snapshots/a");
  EXPECT_EQ(own_.Respell(dir_ / "snaps/absent"), home_ / "snapshots/absent");
  EXPECT_EQ(own_.Respell(dir_ / "link/out/a"), dir_ / "link/out/a") << "its directory is absent";
  // The last component of an artifact's path is not resolved.
  EXPECT_EQ(own_.Respell(dir_ / "a"), dir_ / "a");
  EXPECT_EQ(own_.Respell(dir_ / "homework/a"), dir_ / "homework/a");
  EXPECT_EQ(own_.RespellDirectory(dir_ / "snaps"), home_ / "snapshots");
  EXPECT_EQ(own_.RespellDirectory(dir_ / "link"), home_);
  EXPECT_EQ(own_.RespellDirectory(dir_ / "absent"), dir_ / "absent");
}

TEST_F(HomeTest, RefusesAPathThatIsTooLong) {
  std::string path = "/tmp";
  while (path.size() < 5000) path += "/directory";
  EXPECT_MSB_ERROR(Home({.home = path}).FindRuntimeDatabase(), ErrorKind::kIO, "cannot look up ",
                   "File name too long", "choose a shorter name");
}

TEST_F(HomeTest, FindsTheRuntimesDatabaseThroughALink) {
  EXPECT_EQ(own_.FindRuntimeDatabase(), std::nullopt);
  test::WriteFile(dir_ / "real.db", "x");
  fs::create_directory(home_ / "db");
  fs::create_symlink(dir_ / "real.db", own_.RuntimeDatabase());
  EXPECT_EQ(own_.FindRuntimeDatabase(), dir_ / "real.db");
  fs::remove(dir_ / "real.db");
  EXPECT_MSB_ERROR(own_.FindRuntimeDatabase(), ErrorKind::kIO, "/db/msb.db must be the database",
                   "is a symbolic link", "restore the database");
  fs::remove(own_.RuntimeDatabase());
  fs::create_directory(own_.RuntimeDatabase());
  EXPECT_MSB_ERROR(own_.FindRuntimeDatabase(), ErrorKind::kIO, "/db/msb.db must be the database",
                   "is a directory", "restore the database");
}

// Nothing is known about a database that cannot be looked up.
TEST_F(HomeTest, ALinkThatCannotBeFollowedIsNoDamage) {
  fs::create_directory(home_ / "db");
  fs::create_symlink("msb.db", own_.RuntimeDatabase());
  try {
    own_.FindRuntimeDatabase();
    FAIL();
  } catch (const DatabaseError& e) {
    EXPECT_EQ(e.cause(), DatabaseError::Cause::kInaccessible);
    EXPECT_TRUE(test::Names(e.what(), {"cannot look up ", "/db/msb.db: Too many levels of"}))
        << e.what();
  }
}

}  // namespace
}  // namespace msb::base
