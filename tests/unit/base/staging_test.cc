#include "src/base/staging.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <thread>

#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;
using test::ListTree;
using test::ReadFile;
using test::TempDir;
using test::WriteFile;

using Tree = std::map<std::string, std::string>;

std::uint64_t InodeOf(const fs::path& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}

TEST(StageTest, PublishesTheWholeDirectory) {
  const TempDir dir;
  {
    Stage stage(dir.path());
    EXPECT_EQ(stage.path().parent_path(), dir.path());
    EXPECT_TRUE(stage.path().filename().native().starts_with("."));
    WriteNewFileAt(stage.fd(), "file", "content", 0600);
    EXPECT_FALSE(fs::exists(dir / "name"));
    EXPECT_TRUE(stage.Publish("name"));
  }
  EXPECT_EQ(ReadFile(dir / "name/file"), "content");
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

TEST(StageTest, LeavesWhatIsThereAndNothingElse) {
  const TempDir dir;
  WriteFile(dir / "name/file", "old");
  const Tree before = ListTree(dir.path());
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    EXPECT_FALSE(stage.Publish("name"));
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(StageTest, DoesNotPublishOverAnEmptyDirectoryAFileOrALink) {
  const TempDir dir;
  fs::create_directory(dir / "empty");
  WriteFile(dir / "file", "old");
  fs::create_symlink("nowhere", dir / "link");
  const Tree before = ListTree(dir.path());
  {
    Stage stage(dir.path());
    EXPECT_FALSE(stage.Publish("empty"));
    EXPECT_FALSE(stage.Publish("file"));
    EXPECT_FALSE(stage.Publish("link"));
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(StageTest, LeavesNothingWhenItIsNotPublished) {
  const TempDir dir;
  {
    const Stage stage(dir.path());
    WriteFile(stage.path() / "sub/file", "content");
    EXPECT_EQ(ListTree(dir.path()).size(), 3U);
  }
  EXPECT_EQ(ListTree(dir.path()), Tree());
}

TEST(StageTest, NeedsADirectoryToStandIn) {
  const TempDir dir;
  EXPECT_MSB_ERROR(Stage(dir / "absent"), ErrorKind::kIO);
  EXPECT_FALSE(fs::exists(dir / "absent"));
}

TEST(StageTest, PublishesOverWhatIsThereAndRemovesIt) {
  const TempDir dir;
  WriteFile(dir / "name/old/file", "old");
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    const std::uint64_t inode = InodeOf(stage.path());
    EXPECT_TRUE(stage.PublishOver("name", [](const fs::path&) { return true; }));
    EXPECT_EQ(InodeOf(dir / "name"), inode);
  }
  EXPECT_EQ(ReadFile(dir / "name/file"), "new");
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

TEST(StageTest, PutsBackWhatItMayNotReplace) {
  const TempDir dir;
  WriteFile(dir / "name/file", "precious");
  const auto before = ListTree(dir.path());
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    EXPECT_FALSE(stage.PublishOver("name", [](const fs::path& old) {
      EXPECT_EQ(ReadFile(old / "file"), "precious");
      return false;
    }));
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(StageTest, PublishesOverNothing) {
  const TempDir dir;
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    EXPECT_TRUE(stage.PublishOver("name", [](const fs::path&) { return true; }));
  }
  EXPECT_EQ(ReadFile(dir / "name/file"), "new");
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

TEST(StageTest, PublishesOverALinkAndKeepsWhatItPointsTo) {
  const TempDir dir;
  WriteFile(dir / "target/file", "kept");
  fs::create_directory_symlink("target", dir / "name");
  {
    Stage stage(dir.path());
    EXPECT_TRUE(stage.PublishOver("name", [](const fs::path&) { return true; }));
  }
  EXPECT_EQ(ReadFile(dir / "target/file"), "kept");
  EXPECT_FALSE(fs::is_symlink(dir / "name"));
  EXPECT_TRUE(fs::is_directory(dir / "name"));
  EXPECT_EQ(ListTree(dir.path()).size(), 3U);
}

TEST(StageTest, MovesOneFileOut) {
  const TempDir dir;
  WriteFile(dir / "target", "old");
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    WriteNewFileAt(stage.fd(), "scrap", "scrap", 0600);
    stage.PublishFile("file", "target");
    EXPECT_MSB_ERROR(stage.PublishFile("absent", "target"), ErrorKind::kIO);
  }
  EXPECT_EQ(ReadFile(dir / "target"), "new");
  EXPECT_EQ(ListTree(dir.path()).size(), 1U);
}

TEST(StageTest, SweepsWhatACrashLeft) {
  const TempDir dir;
  WriteFile(dir / ".msb-stage-0123456789abcdef/sub/file", "left");
  WriteFile(dir / "kept/file", "kept");
  {
    const Stage stage(dir.path());
    EXPECT_FALSE(fs::exists(dir / ".msb-stage-0123456789abcdef"));
  }
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
  EXPECT_EQ(ReadFile(dir / "kept/file"), "kept");
}

TEST(StageTest, SweepsNoStageThatSomebodyBuilds) {
  const TempDir dir;
  Stage first(dir.path());
  WriteNewFileAt(first.fd(), "file", "first", 0600);
  Stage second(dir.path());
  WriteNewFileAt(second.fd(), "file", "second", 0600);
  HideDurably(dir.path(), "absent");
  EXPECT_TRUE(first.Publish("first"));
  EXPECT_TRUE(second.Publish("second"));
  EXPECT_EQ(ReadFile(dir / "first/file"), "first");
  EXPECT_EQ(ReadFile(dir / "second/file"), "second");
}

TEST(StageTest, SweepsOnlyDirectoriesOfItsOwn) {
  const TempDir dir;
  const TempDir outside;
  WriteFile(outside / "file", "kept");
  WriteFile(dir / ".msb-stage-file", "kept");
  WriteFile(dir / ".msb-other/file", "kept");
  WriteFile(dir / "msb-stage-visible/file", "kept");
  fs::create_directory_symlink(outside.path(), dir / ".msb-stage-link");
  const Tree before = ListTree(dir.path());
  { const Stage stage(dir.path()); }
  EXPECT_EQ(ListTree(dir.path()), before);
  EXPECT_EQ(ReadFile(outside / "file"), "kept");
}

// What its callers do with it.
bool Remove(const fs::path& parent, const std::string& name) {
  const auto hidden = HideDurably(parent, name);
  if (hidden) RemoveTree(*hidden);
  return hidden.has_value();
}

TEST(HideDurablyTest, RemovesOnceAndLeavesNothing) {
  const TempDir dir;
  WriteFile(dir / "name/sub/file", "gone");
  WriteFile(dir / "other/file", "kept");
  WriteFile(dir / ".msb-stage-0123456789abcdef/file", "left by a crash");
  EXPECT_TRUE(Remove(dir.path(), "name"));
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
  EXPECT_EQ(ReadFile(dir / "other/file"), "kept");
  EXPECT_FALSE(Remove(dir.path(), "name"));
  EXPECT_FALSE(Remove(dir / "absent", "name"));
}

TEST(HideDurablyTest, RemovesALinkAndNotWhatItPointsTo) {
  const TempDir dir;
  WriteFile(dir / "target/file", "kept");
  fs::create_directory_symlink("target", dir / "name");
  EXPECT_TRUE(Remove(dir.path(), "name"));
  EXPECT_FALSE(fs::is_symlink(dir / "name"));
  EXPECT_EQ(ReadFile(dir / "target/file"), "kept");
}

TEST(LockTest, KeepsOthersOutUntilItIsClosed) {
  const TempDir dir;
  UniqueFd first = OpenDirectory(dir.path());
  const UniqueFd second = OpenDirectory(dir.path());
  EXPECT_TRUE(TryLock(first.get()));
  EXPECT_FALSE(TryLock(second.get()));
  first.Reset(-1);
  EXPECT_TRUE(TryLock(second.get()));
}

TEST(LockTest, WaitsUntilTheOtherIsDone) {
  const TempDir dir;
  UniqueFd first = OpenDirectory(dir.path());
  const UniqueFd second = OpenDirectory(dir.path());
  ASSERT_TRUE(TryLock(first.get()));
  std::thread waiter([&] { Lock(Context::Background(), second.get()); });
  first.Reset(-1);
  waiter.join();
  EXPECT_FALSE(TryLock(OpenDirectory(dir.path()).get()));
}

TEST(LockTest, StopsWaitingWhenCancelledOrLate) {
  const TempDir dir;
  const UniqueFd first = OpenDirectory(dir.path());
  const UniqueFd second = OpenDirectory(dir.path());
  ASSERT_TRUE(TryLock(first.get()));
  const auto [ctx, cancel] = Context::Background().WithCancel();
  cancel();
  EXPECT_MSB_ERROR(Lock(ctx, second.get()), ErrorKind::kCancelled);
  EXPECT_MSB_ERROR(
      Lock(Context::Background().WithTimeout(std::chrono::milliseconds(20)), second.get()),
      ErrorKind::kCancelled);
}

}  // namespace
}  // namespace msb::base
