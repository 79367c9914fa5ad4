#include "src/base/staging.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

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

// The names that enter and leave a directory while it lives, in their order.
class Watch {
 public:
  explicit Watch(const fs::path& dir) : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    EXPECT_GE(inotify_add_watch(fd_.get(), dir.c_str(), IN_MOVED_TO | IN_MOVED_FROM), 0);
  }

  // "+a" for one that was moved here, "-a" for one that was moved away.
  std::vector<std::string> Take() {
    std::vector<std::string> names;
    alignas(inotify_event) char buffer[4096];
    for (ssize_t n = 0; (n = read(fd_.get(), buffer, sizeof buffer)) > 0;) {
      for (const char* at = buffer; at < buffer + n;) {
        const auto* event = reinterpret_cast<const inotify_event*>(at);
        names.push_back(((event->mask & IN_MOVED_TO) != 0 ? "+" : "-") + std::string(event->name));
        at += sizeof(inotify_event) + event->len;
      }
    }
    return names;
  }

 private:
  UniqueFd fd_;
};

// Three entries, to be published as "b", "a", "c".
void FillStage(const Stage& stage) {
  WriteFile(stage.path() / "a/file", "a");
  WriteFile(stage.path() / "b/file", "b");
  WriteFile(stage.path() / "c", "c");
}

TEST(StageTest, PublishesEntriesInTheirOrder) {
  const TempDir dir;
  WriteFile(dir / "kept", "kept");
  {
    Stage stage(dir.path());
    FillStage(stage);
    WriteNewFileAt(stage.fd(), "scrap", "scrap", 0600);
    Watch watch(dir.path());
    EXPECT_EQ(stage.PublishEntries({"b", "a", "c"}), std::nullopt);
    EXPECT_EQ(watch.Take(), (std::vector<std::string>{"+b", "+a", "+c"}));
    EXPECT_EQ(ListTree(stage.path()).size(), 1U);
  }
  EXPECT_EQ(ReadFile(dir / "a/file"), "a");
  EXPECT_EQ(ReadFile(dir / "b/file"), "b");
  EXPECT_EQ(ReadFile(dir / "c"), "c");
  EXPECT_EQ(ListTree(dir.path()).size(), 6U);
}

TEST(StageTest, PublishesNoEntryIfOneIsTaken) {
  for (const std::string taken : {"b", "a", "c"}) {
    const TempDir dir;
    WriteFile(dir / taken / "file", "old");
    const Tree before = ListTree(dir.path());
    {
      Stage stage(dir.path());
      FillStage(stage);
      const Tree staged = ListTree(stage.path());
      EXPECT_EQ(stage.PublishEntries({"b", "a", "c"}), taken);
      EXPECT_EQ(ListTree(stage.path()), staged);
    }
    EXPECT_EQ(ListTree(dir.path()), before);
  }
}

TEST(StageTest, TellsTheFirstEntryThatIsTakenByWhateverItIs) {
  const TempDir dir;
  fs::create_directory(dir / "a");
  fs::create_symlink("nowhere", dir / "c");
  const Tree before = ListTree(dir.path());
  {
    Stage stage(dir.path());
    FillStage(stage);
    EXPECT_EQ(stage.PublishEntries({"b", "c", "a"}), "c");
    EXPECT_EQ(stage.PublishEntries({"b", "a", "c"}), "a");
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(StageTest, TakesEntriesBackIfOneCannotBePublished) {
  const TempDir dir;
  {
    Stage stage(dir.path());
    FillStage(stage);
    const Tree staged = ListTree(stage.path());
    Watch watch(dir.path());
    EXPECT_MSB_ERROR(stage.PublishEntries({"b", "a", "absent", "c"}), ErrorKind::kIO);
    EXPECT_EQ(watch.Take(), (std::vector<std::string>{"+b", "+a", "-a", "-b"}));
    EXPECT_EQ(ListTree(stage.path()), staged);
  }
  EXPECT_EQ(ListTree(dir.path()), Tree());
}

TEST(StageTest, TakesBackWhatItPublishedTheLastFirst) {
  const TempDir dir;
  WriteFile(dir / "kept", "kept");
  const Tree before = ListTree(dir.path());
  {
    Stage stage(dir.path());
    FillStage(stage);
    const Tree staged = ListTree(stage.path());
    ASSERT_EQ(stage.PublishEntries({"b", "a", "c"}), std::nullopt);
    Watch watch(dir.path());
    stage.TakeBack({"b", "a", "c"});
    EXPECT_EQ(watch.Take(), (std::vector<std::string>{"-c", "-a", "-b"}));
    EXPECT_EQ(ListTree(stage.path()), staged);
  }
  EXPECT_EQ(ListTree(dir.path()), before);
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
