// SPDX-License-Identifier: Apache-2.0

#include "src/base/new_directory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <thread>

#include "src/base/staging.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;
using test::ListTree;
using test::TempDir;
using test::WriteFile;

TEST(NewDirectoryTest, IsRemovedWithItsParents) {
  const TempDir dir;
  fs::create_directory(dir / "there");
  const auto before = ListTree(dir.path());
  {
    const NewDirectory made(dir / "there/a/b/c");
    WriteNewFileAt(made.fd(), "file", "content", 0600);
    EXPECT_EQ(test::ReadFile(dir / "there/a/b/c/file"), "content");
    fs::remove(dir / "there/a/b/c/file");
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(NewDirectoryTest, StaysOnceItIsKept) {
  const TempDir dir;
  {
    NewDirectory made(dir / "a/b");
    made.Keep();
  }
  EXPECT_TRUE(fs::is_directory(dir / "a/b"));
}

TEST(NewDirectoryTest, KeepsExistingDirectories) {
  const TempDir dir;
  fs::create_directories(dir / "empty");
  WriteFile(dir / "full/file", "content");
  fs::create_directory_symlink("empty", dir / "link");
  const auto before = ListTree(dir.path());
  for (const char* name : {"empty", "full", "link"}) {
    { const NewDirectory there(dir / name); }
    EXPECT_EQ(ListTree(dir.path()), before) << name;
  }
  { const NewDirectory behind_a_link(dir / "link/a"); }
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(NewDirectoryTest, KeepsNonEmptyDirectories) {
  const TempDir dir;
  {
    const NewDirectory made(dir / "a/b/c");
    WriteFile(dir / "a/b/mine", "content");
  }
  EXPECT_FALSE(fs::exists(dir / "a/b/c"));
  EXPECT_EQ(test::ReadFile(dir / "a/b/mine"), "content");
}

TEST(NewDirectoryTest, LeavesNothingWhereItCannotBe) {
  const TempDir dir;
  WriteFile(dir / "file", "content");
  fs::create_symlink("nowhere", dir / "dangling");
  const auto before = ListTree(dir.path());
  EXPECT_MSB_ERROR(NewDirectory(dir / "file"), ErrorKind::kIO,
                   "/file: ", "not a directory: correct the path");
  EXPECT_MSB_ERROR(NewDirectory(dir / "file/a/b"), ErrorKind::kIO,
                   "/file: ", "not a directory: correct the path");
  EXPECT_MSB_ERROR(NewDirectory(dir / "dangling/a"), ErrorKind::kIO,
                   "/dangling is a symbolic link to ", "correct the link");
  EXPECT_MSB_ERROR(NewDirectory(dir / ("a/b/" + std::string(256, 'n'))), ErrorKind::kIO, "/a/b/nnn",
                   "choose a shorter name");
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(NewDirectoryTest, KeepsADirectoryThatAnotherCallHasMade) {
  const TempDir dir;
  const NewDirectory first(dir / "a/b");
  { const NewDirectory second(dir / "a/b"); }
  EXPECT_TRUE(fs::is_directory(dir / "a/b"));
}

// Each thread makes the same directories and removes them again, while the other needs them.
TEST(NewDirectoryTest, StagesAreMadeWhileAnotherCallRemovesTheirParents) {
  const TempDir dir;
  const auto loop = [&] {
    for (int i = 0; i < 300; ++i) {
      EXPECT_NO_THROW(Stage(dir / "a/b/c", Stage::Parents::kMake));
    }
  };
  std::thread other(loop);
  loop();
  other.join();
  // A call keeps directories that the other one made, but no stage may remain.
  for (const auto& [path, content] : ListTree(dir.path())) {
    EXPECT_EQ(path.find(".msb-stage-"), std::string::npos) << path;
  }
}

}  // namespace
}  // namespace msb::base
