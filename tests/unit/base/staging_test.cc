// SPDX-License-Identifier: Apache-2.0

#include "src/base/staging.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/call_interceptor.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;
using test::ListTree;
using test::ReadFile;
using test::TempDir;
using test::Unexpected;
using test::WriteFile;

using Tree = std::map<std::string, std::string>;

std::uint64_t InodeOf(const fs::path& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}

// Records the names that are moved into and out of a directory, in this order.
class Watch {
 public:
  explicit Watch(const fs::path& dir) : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    EXPECT_GE(inotify_add_watch(fd_.get(), dir.c_str(), IN_MOVED_TO | IN_MOVED_FROM), 0);
  }

  // Returns the names recorded since the last call: "+a" if a was moved in, "-a" if it was moved
  // out.
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

std::uint64_t InodeOf(int fd) { return StampOf(fd).inode; }

TEST(StageTest, PublishesTheCompleteDirectory) {
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

TEST(StageTest, KeepsAnExistingEntryAndDeletesTheStage) {
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
  EXPECT_MSB_ERROR(Stage(dir / "absent"), ErrorKind::kIO, "cannot open directory ",
                   "/absent: ", "create it, or correct the path");
  EXPECT_FALSE(fs::exists(dir / "absent"));
}

TEST(StageTest, ReplacesAndDeletesTheExistingDirectory) {
  const TempDir dir;
  WriteFile(dir / "name/old/file", "old");
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    const std::uint64_t inode = InodeOf(stage.path());
    EXPECT_TRUE(stage.PublishOver(Context::Background(), "name",
                                  [](int, const fs::path&) { return true; }));
    EXPECT_EQ(InodeOf(dir / "name"), inode);
  }
  EXPECT_EQ(ReadFile(dir / "name/file"), "new");
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

TEST(StageTest, KeepsADirectoryThatItMayNotReplace) {
  const TempDir dir;
  WriteFile(dir / "name/file", "precious");
  const auto before = ListTree(dir.path());
  const std::uint64_t inode = InodeOf(dir / "name");
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    Watch watch(dir.path());
    EXPECT_FALSE(
        stage.PublishOver(Context::Background(), "name", [&](int old, const fs::path& path) {
          EXPECT_EQ(path, dir / "name");
          EXPECT_EQ(InodeOf(old), inode);
          EXPECT_FALSE(TryLock(OpenDirectory(dir / "name").get()));
          return false;
        }));
    EXPECT_EQ(watch.Take(), std::vector<std::string>());  // The directory was never moved.
    EXPECT_TRUE(TryLock(OpenDirectory(dir / "name").get()));
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(StageTest, PublishesOverNothing) {
  const TempDir dir;
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    EXPECT_TRUE(stage.PublishOver(Context::Background(), "name",
                                  [](int, const fs::path&) { return true; }));
  }
  EXPECT_EQ(ReadFile(dir / "name/file"), "new");
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

TEST(StageTest, ReplacesNeitherALinkNorAFile) {
  const TempDir dir;
  WriteFile(dir / "target/file", "kept");
  WriteFile(dir / "file", "kept");
  fs::create_directory_symlink("target", dir / "link");
  const Tree before = ListTree(dir.path());
  {
    Stage stage(dir.path());
    const auto any = [](int, const fs::path&) { return true; };
    EXPECT_FALSE(stage.PublishOver(Context::Background(), "link", any));
    EXPECT_FALSE(stage.PublishOver(Context::Background(), "file", any));
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

// Other software, which takes no lock, exchanges the directory just before it is replaced.
TEST(StageTest, NeverReplacesASuccessorOfTheLockedDirectory) {
  const TempDir dir;
  WriteFile(dir / "name/file", "old");
  int asked = 0;
  {
    Stage stage(dir.path());
    EXPECT_FALSE(stage.PublishOver(Context::Background(), "name", [&](int, const fs::path& path) {
      if (++asked > 1) return ReadFile(path / "file") != "precious";
      fs::rename(dir / "name", dir / "moved");
      WriteFile(dir / "name/file", "precious");
      return true;
    }));
  }
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(ReadFile(dir / "name/file"), "precious");
  EXPECT_EQ(ReadFile(dir / "moved/file"), "old");
  EXPECT_EQ(ListTree(dir.path()).size(), 4U);
}

TEST(StageTest, PublishesWhenTheLockedDirectoryDisappears) {
  const TempDir dir;
  WriteFile(dir / "name/file", "old");
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    EXPECT_TRUE(stage.PublishOver(Context::Background(), "name", [&](int, const fs::path&) {
      fs::remove_all(dir / "name");
      return true;
    }));
  }
  EXPECT_EQ(ReadFile(dir / "name/file"), "new");
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

TEST(StageTest, WaitsForTheLockOfTheReplacedDirectory) {
  const TempDir dir;
  WriteFile(dir / "name/file", "old");
  LockedDirectory other = LockedDirectory::Open(Context::Background(), dir.path(), "name");
  ASSERT_TRUE(other);
  const auto any = [](int, const fs::path&) { return true; };
  const Tree before = ListTree(dir.path());
  {
    Stage late(dir.path());
    const Context ctx = Context::Background().WithTimeout(std::chrono::milliseconds(200));
    EXPECT_MSB_ERROR(late.PublishOver(ctx, "name", any), ErrorKind::kCancelled,
                     "deadline exceeded");
  }
  EXPECT_EQ(ListTree(dir.path()), before);
  Stage stage(dir.path());
  std::thread replacing(
      [&] { EXPECT_TRUE(stage.PublishOver(Context::Background(), "name", any)); });
  other = LockedDirectory();
  replacing.join();
  EXPECT_FALSE(fs::exists(dir / "name/file"));
}

TEST(StageTest, KeepsTheLockOfTheReplacedDirectoryUntilItIsDeleted) {
  const TempDir dir;
  WriteFile(dir / "name/file", "old");
  {
    Stage stage(dir.path());
    EXPECT_TRUE(stage.PublishOver(Context::Background(), "name",
                                  [](int, const fs::path&) { return true; }));
    SweepStages(Context::Background(), dir.path(), Unexpected);
    EXPECT_EQ(ReadFile(stage.path() / "file"), "old");
    EXPECT_TRUE(stage.Withdraw());
    SweepStages(Context::Background(), dir.path(), Unexpected);
    EXPECT_EQ(ReadFile(dir / "name/file"), "old");
    EXPECT_FALSE(stage.Withdraw());
    EXPECT_TRUE(stage.PublishOver(Context::Background(), "name",
                                  [](int, const fs::path&) { return true; }));
  }
  EXPECT_EQ(ListTree(dir.path()).size(), 1U);
}

TEST(StageTest, WithdrawsOnlyItsOwnDirectory) {
  const TempDir dir;
  {
    Stage stage(dir.path());
    ASSERT_TRUE(stage.Publish("name"));
    fs::rename(dir / "name", dir / "moved");
    WriteFile(dir / "name/file", "precious");
    EXPECT_FALSE(stage.Withdraw());
  }
  EXPECT_EQ(ReadFile(dir / "name/file"), "precious");
  EXPECT_TRUE(fs::is_directory(dir / "moved"));
}

TEST(StageTest, MakesMissingParentsAndRemovesThemUnlessItIsPublished) {
  const TempDir dir;
  { const Stage stage(dir / "a/b", Stage::Parents::kMake); }
  EXPECT_EQ(ListTree(dir.path()), Tree());
  {
    Stage stage(dir / "a/b", Stage::Parents::kMake);
    EXPECT_TRUE(stage.Publish("name"));
  }
  EXPECT_TRUE(fs::is_directory(dir / "a/b/name"));
}

// Eight threads replace one name: each waits for the others, and none fails.
TEST(StageTest, ConcurrentReplacementsAllSucceed) {
  const TempDir dir;
  const auto replace = [&](int thread) {
    for (int i = 0; i < 25; ++i) {
      Stage stage(dir.path());
      WriteNewFileAt(stage.fd(), "file", std::to_string(thread), 0600);
      EXPECT_TRUE(stage.PublishOver(Context::Background(), "name", [](int old, const fs::path&) {
        EXPECT_EQ(ListDirectory(old).size(), 1U);
        return true;
      }));
      SweepStages(Context::Background(), dir.path(), Unexpected);
    }
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) threads.emplace_back(replace, thread);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

// Another call removes the directory just before this one looks for it, and creates it just after.
TEST(StageTest, PublishesOverADirectoryThatIsRemovedAndCreatedMeanwhile) {
  const TempDir dir;
  fs::create_directory(dir / "name");
  int looks = 0;
  const auto run = test::RunIntercepted(
      {SYS_newfstatat},
      [&](const test::InterceptedCall& call) {
        if (call.Text(1) != "name") return 0;
        if (looks == 0) fs::remove(dir / "name");
        if (looks == 1) fs::create_directory(dir / "name");
        ++looks;
        return 0;
      },
      [&](const auto& begin) {
        Stage stage(dir.path());
        WriteNewFileAt(stage.fd(), "file", "new", 0600);
        begin();
        const bool published = stage.PublishOver(Context::Background(), "name",
                                                 [](int, const fs::path&) { return true; });
        return std::string(published ? "published" : "refused");
      });
  EXPECT_EQ(run.crash + run.report, "published");
  EXPECT_GE(looks, 2);
  EXPECT_EQ(ReadFile(dir / "name/file"), "new");
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

TEST(StageTest, PublishesAFileOverNothingButARegularFile) {
  const TempDir dir;
  WriteFile(dir / "directory/file", "kept");
  fs::create_directory(dir / "empty");
  fs::create_symlink("nowhere", dir / "link");
  const Tree before = ListTree(dir.path());
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    Watch watch(dir.path());
    for (const char* target : {"directory", "empty", "link"}) {
      EXPECT_MSB_ERROR(stage.PublishFile("file", target), ErrorKind::kInvalidArgument,
                       "/" + std::string(target) + " is a ", "only a regular file can be replaced");
    }
    EXPECT_EQ(watch.Take(), std::vector<std::string>());
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(StageTest, MovesOneFileOut) {
  const TempDir dir;
  WriteFile(dir / "target", "old");
  {
    Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), "file", "new", 0600);
    WriteNewFileAt(stage.fd(), "scrap", "scrap", 0600);
    stage.PublishFile("file", "target");
    EXPECT_MSB_ERROR(stage.PublishFile("absent", "target"), ErrorKind::kIO, "cannot rename ",
                     "/absent to ", "/target: ", "/absent is absent: ");
  }
  EXPECT_EQ(ReadFile(dir / "target"), "new");
  EXPECT_EQ(ListTree(dir.path()).size(), 1U);
}

// Fills the stage with three entries, to be published as "b", "a", "c".
void FillStage(const Stage& stage) {
  WriteFile(stage.path() / "a/file", "a");
  WriteFile(stage.path() / "b/file", "b");
  WriteFile(stage.path() / "c", "c");
}

TEST(StageTest, PublishesEntriesAndDeletesTheOthers) {
  const TempDir dir;
  WriteFile(dir / "kept", "kept");
  {
    Stage stage(dir.path());
    FillStage(stage);
    EXPECT_TRUE(stage.PublishEntry("b", "other"));
    EXPECT_TRUE(stage.PublishEntry("c", "c"));
    EXPECT_FALSE(fs::exists(stage.path() / "b"));
  }
  EXPECT_EQ(ReadFile(dir / "other/file"), "b");
  EXPECT_EQ(ReadFile(dir / "c"), "c");
  EXPECT_EQ(ListTree(dir.path()).size(), 4U);
}

TEST(StageTest, PublishesNoEntryWhoseTargetExists) {
  const TempDir dir;
  fs::create_directory(dir / "a");
  fs::create_symlink("nowhere", dir / "link");
  WriteFile(dir / "file", "old");
  const Tree before = ListTree(dir.path());
  {
    Stage stage(dir.path());
    FillStage(stage);
    const Tree staged = ListTree(stage.path());
    for (const char* target : {"a", "link", "file"}) {
      EXPECT_FALSE(stage.PublishEntry("a", target)) << target;
    }
    EXPECT_MSB_ERROR(stage.PublishEntry("absent", "new"), ErrorKind::kIO, "cannot rename ",
                     "/absent is absent: ");
    EXPECT_EQ(ListTree(stage.path()), staged);
  }
  EXPECT_EQ(ListTree(dir.path()), before);
}

// A process that is killed while it replaces a file leaves nothing that stays.
TEST(ReplaceFileInStageTest, RemovesWhatAKilledCallHasLeft) {
  const TempDir dir;
  WriteFile(dir / "file", "old");
  const pid_t pid = fork();
  if (pid == 0) {
    const Stage stage(dir.path());
    WriteNewFileAt(stage.fd(), ".file.0123456789abcdef", "half", 0600);
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFSIGNALED(status));
  ReplaceFileInStage(dir.path(), "file", "new", 0600);
  EXPECT_EQ(ReadFile(dir / "file"), "new");
  EXPECT_EQ(ListDirectory(OpenDirectory(dir.path()).get()).size(), 1U);
}

}  // namespace
}  // namespace msb::base
