// SPDX-License-Identifier: Apache-2.0

#include "src/index/own_database.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/support.h"

namespace msb::index {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Optional;

TEST(OwnDatabaseTest, SetsAsideTheDatabaseWithItsFiles) {
  const test::TempDir dir;
  for (const char* suffix : {"", "-wal", "-shm"}) {
    test::WriteFile(dir / (std::string("snapshots.db") + suffix), suffix);
  }
  test::WriteFile(dir / "msb.db", "the runtime's");
  const fs::path aside = SetAside(dir / "snapshots.db");
  EXPECT_THAT(aside.native(), HasSubstr("snapshots.db.damaged-"));
  for (const char* suffix : {"", "-wal", "-shm"}) {
    EXPECT_EQ(test::ReadFile(aside.native() + suffix), suffix);
    EXPECT_FALSE(fs::exists(dir / (std::string("snapshots.db") + suffix)));
  }
  EXPECT_EQ(test::ReadFile(dir / "msb.db"), "the runtime's");
}

TEST(OwnDatabaseTest, KeepsDirectoriesThatAreNotEmpty) {
  const test::TempDir dir;
  std::vector<fs::path> aside;
  for (int i = 0; i < 5; ++i) {
    test::WriteFile(dir / "snapshots.db/file", "precious");
    aside.push_back(SetAside(dir / "snapshots.db"));
  }
  for (const fs::path& path : aside) EXPECT_EQ(test::ReadFile(path / "file"), "precious");
}

TEST(OwnDatabaseTest, FindsADatabaseThatIsNotARegularFile) {
  const test::TempDir dir;
  EXPECT_EQ(FindMisplaced(dir / "snapshots.db"), std::nullopt);
  test::WriteFile(dir / "snapshots.db", "x");
  EXPECT_EQ(FindMisplaced(dir / "snapshots.db"), std::nullopt);
  fs::create_symlink("snapshots.db", dir / "snapshots.db-wal");
  EXPECT_THAT(
      FindMisplaced(dir / "snapshots.db"),
      Optional(HasSubstr(
          (dir / "snapshots.db-wal must be a regular file, but is a symbolic link").native())));
}

TEST(OwnDatabaseTest, UnshareLeavesTheOtherNamesAsTheyAre) {
  const test::TempDir dir;
  for (const char* suffix : {"", "-wal", "-shm"}) {
    const std::string name = std::string("snapshots.db") + suffix;
    test::WriteFile(dir / name, name);
    fs::create_hard_link(dir / name, dir / ("copy" + name));
  }
  EXPECT_TRUE(Unshare(dir / "snapshots.db"));
  EXPECT_EQ(test::ReadFile(dir / "snapshots.db"), "snapshots.db");
  EXPECT_EQ(test::ReadFile(dir / "snapshots.db-wal"), "snapshots.db-wal");
  EXPECT_FALSE(fs::exists(dir / "snapshots.db-shm"));
  for (const char* suffix : {"", "-wal", "-shm"}) {
    const std::string name = std::string("snapshots.db") + suffix;
    EXPECT_EQ(test::ReadFile(dir / ("copy" + name)), name);
    EXPECT_EQ(fs::hard_link_count(dir / ("copy" + name)), 1U);
  }
  EXPECT_FALSE(Unshare(dir / "snapshots.db"));
}

}  // namespace
}  // namespace msb::index
