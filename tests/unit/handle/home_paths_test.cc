#include "src/handle/home_paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/artifact/store.h"
#include "tests/support/support.h"

namespace msb::handle {
namespace {

namespace fs = std::filesystem;

class HomePathsTest : public ::testing::Test {
 protected:
  HomePathsTest() { fs::create_directories(home_ / "snapshots"); }

  static index::Row RowOf(const fs::path& artifact) {
    index::Row row;
    row.digest = artifact::ReadManifest(artifact)->digest;
    row.name = artifact.filename();
    row.artifact_path = artifact;
    return row;
  }

  test::TempDir dir_;
  const fs::path home_ = dir_ / "home";
  const HomePaths paths_{home_, home_ / "snapshots"};
  const HomePaths::HasRow none_ = [](const fs::path&) { return false; };
};

TEST_F(HomePathsTest, RespellsWhatLinksLeadToAndNothingElse) {
  fs::create_directories(home_ / "snapshots/a");
  fs::create_directory_symlink(home_, dir_ / "link");
  fs::create_directory_symlink(home_ / "snapshots", dir_ / "snaps");
  fs::create_directory_symlink(home_ / "snapshots/a", dir_ / "a");
  EXPECT_EQ(paths_.Respell(dir_ / "link/snapshots/a"), home_ / "snapshots/a");
  EXPECT_EQ(paths_.Respell(dir_ / "snaps/absent"), home_ / "snapshots/absent");
  EXPECT_EQ(paths_.Respell(dir_ / "link/out/a"), dir_ / "link/out/a") << "its directory is absent";
  // The last component of an artifact's path is not resolved.
  EXPECT_EQ(paths_.Respell(dir_ / "a"), dir_ / "a");
  EXPECT_EQ(paths_.Respell(dir_ / "homework/a"), dir_ / "homework/a");
  EXPECT_EQ(paths_.RespellDirectory(dir_ / "snaps"), home_ / "snapshots");
  EXPECT_EQ(paths_.RespellDirectory(dir_ / "link"), home_);
  EXPECT_EQ(paths_.RespellDirectory(dir_ / "absent"), dir_ / "absent");
}

TEST_F(HomePathsTest, ARowThatLeadsElsewhereMeansTheCounterpartInTheHome) {
  const fs::path other = test::UnpackFixtureHome("0.6.18", dir_ / "fixture");
  const index::Row row = RowOf(other / "snapshots/plain");
  // There is no counterpart, and the row leads into another home.
  EXPECT_FALSE(paths_.Resolve(row, none_));
  fs::copy(other / "snapshots/plain", home_ / "snapshots/plain", fs::copy_options::recursive);
  EXPECT_EQ(paths_.Resolve(row, none_)->artifact_path, home_ / "snapshots/plain");
  const auto all = [](const fs::path&) { return true; };
  EXPECT_FALSE(paths_.Resolve(row, all)) << "the counterpart has a row of its own";
  // An artifact with another digest is not a counterpart.
  index::Row changed = row;
  changed.digest = "sha256:" + std::string(64, '0');
  EXPECT_FALSE(paths_.Resolve(changed, none_));
}

TEST_F(HomePathsTest, ARowOutsideOfAnyHomeStaysAsItIs) {
  index::Row row;
  row.digest = "sha256:" + std::string(64, '0');
  row.name = "a";
  row.artifact_path = dir_ / "elsewhere/a";
  EXPECT_EQ(paths_.Resolve(row, none_)->artifact_path, row.artifact_path);
  row.artifact_path = home_ / "snapshots/gone";
  EXPECT_EQ(paths_.Resolve(row, none_)->artifact_path, row.artifact_path);
}

TEST_F(HomePathsTest, FindsTheRuntimesDatabaseThroughALink) {
  EXPECT_EQ(FindRuntimeDatabase(home_), std::nullopt);
  test::WriteFile(dir_ / "real.db", "x");
  fs::create_directory(home_ / "db");
  fs::create_symlink(dir_ / "real.db", RuntimeDatabase(home_));
  EXPECT_EQ(FindRuntimeDatabase(home_), dir_ / "real.db");
  fs::remove(dir_ / "real.db");
  EXPECT_MSB_ERROR(FindRuntimeDatabase(home_), ErrorKind::kIO, "/db/msb.db must be the database",
                   "is a symbolic link", "restore the database");
  fs::remove(RuntimeDatabase(home_));
  fs::create_directory(RuntimeDatabase(home_));
  EXPECT_MSB_ERROR(FindRuntimeDatabase(home_), ErrorKind::kIO, "/db/msb.db must be the database",
                   "is a directory", "restore the database");
}

}  // namespace
}  // namespace msb::handle
