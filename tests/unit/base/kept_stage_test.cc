// SPDX-License-Identifier: Apache-2.0
//
// Stages with a key, which outlive the call that built them.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "src/base/file_system.h"
#include "src/base/rename.h"
#include "src/base/staging.h"
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

const std::string kKey(64, 'a');
constexpr auto kMake = Stage::Parents::kMake;
constexpr auto kMustExist = Stage::Parents::kMustExist;

// Returns the path of the stage with a key.
fs::path PathOf(const fs::path& parent, const std::string& key = kKey) {
  return parent / (".msb-pull-" + LockDomain(OpenDirectory(parent).get()) + "-" + key);
}

// Leaves a stage with this file, as an interrupted call does.
void Leave(const fs::path& parent, const std::string& key = kKey) {
  const Stage stage(Context::Background(), parent, key, kMustExist);
  WriteFile(stage.path() / "a/file", "left");
}

// Sets the time of the last change of everything in a directory, and of the directory itself.
void SetAge(const fs::path& path, std::chrono::hours age) {
  const auto now = std::chrono::system_clock::now() - age;
  timespec time{};
  time.tv_sec = std::chrono::system_clock::to_time_t(now);
  const std::array<timespec, 2> times = {time, time};
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    ASSERT_EQ(utimensat(AT_FDCWD, entry.path().c_str(), times.data(), AT_SYMLINK_NOFOLLOW), 0);
  }
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times.data(), 0), 0);
}

TEST(KeptStageTest, IsKeptAfterAnException) {
  const TempDir dir;
  try {
    const Stage stage(Context::Background(), dir.path(), kKey, kMustExist);
    EXPECT_EQ(stage.path(), PathOf(dir.path()));
    WriteNewFileAt(stage.fd(), "file", "left", 0600);
    throw std::runtime_error("interrupted");
  } catch (const std::runtime_error&) {
  }
  const Stage next(Context::Background(), dir.path(), kKey, kMustExist);
  EXPECT_EQ(ReadFile(next.path() / "file"), "left");
}

TEST(KeptStageTest, IsKeptAfterItsProcessWasKilled) {
  const TempDir dir;
  const pid_t child = fork();
  if (child == 0) {
    const Stage stage(Context::Background(), dir.path(), kKey, kMustExist);
    WriteNewFileAt(stage.fd(), "file", "left", 0600);
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  SweepStages(Context::Background(), dir.path(), Unexpected);
  const Stage next(Context::Background(), dir.path(), kKey, kMustExist);
  EXPECT_EQ(ReadFile(next.path() / "file"), "left");
}

TEST(KeptStageTest, IsSeparateForEachKey) {
  const TempDir dir;
  Leave(dir.path());
  const Stage other(Context::Background(), dir.path(), std::string(64, 'b'), kMustExist);
  EXPECT_EQ(ListTree(other.path()), Tree());
}

TEST(KeptStageTest, KeepsTheOtherEntriesWhenOneIsPublished) {
  const TempDir dir;
  Leave(dir.path());
  {
    Stage stage(Context::Background(), dir.path(), kKey, kMustExist);
    WriteFile(stage.path() / "other", "other");
    EXPECT_TRUE(stage.PublishEntry("a", "a"));
  }
  EXPECT_EQ(ReadFile(dir / "a/file"), "left");
  EXPECT_EQ(ReadFile(PathOf(dir.path()) / "other"), "other");
  {
    Stage stage(Context::Background(), dir.path(), kKey, kMustExist);
    stage.Discard();
  }
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

TEST(KeptStageTest, IsKeptIfItsEntryCannotBePublished) {
  const TempDir dir;
  Leave(dir.path());
  const Tree left = ListTree(dir.path());
  {
    Stage stage(Context::Background(), dir.path(), kKey, kMustExist);
    fs::create_directory(dir / "a");
    EXPECT_FALSE(stage.PublishEntry("a", "a"));
    fs::remove(dir / "a");
  }
  EXPECT_EQ(ListTree(dir.path()), left);
}

TEST(KeptStageTest, CanBePublishedAsADirectory) {
  const TempDir dir;
  Leave(dir.path());
  {
    Stage stage(Context::Background(), dir.path(), kKey, kMustExist);
    EXPECT_TRUE(stage.Publish("name"));
  }
  EXPECT_EQ(ReadFile(dir / "name/a/file"), "left");
  EXPECT_EQ(ListTree(dir.path()).size(), 3U);
}

TEST(KeptStageTest, IsDeletedIfItIsDiscarded) {
  const TempDir dir;
  Leave(dir.path());
  {
    Stage stage(Context::Background(), dir.path(), kKey, kMustExist);
    stage.Discard();
    EXPECT_TRUE(fs::exists(stage.path() / "a/file"));
  }
  EXPECT_EQ(ListTree(dir.path()), Tree());
}

TEST(KeptStageTest, KeepsItsNewParentsOnlyIfItIsNotEmpty) {
  const TempDir dir;
  { const Stage stage(Context::Background(), dir / "a/b", kKey, kMake); }
  EXPECT_EQ(ListTree(dir.path()), Tree());
  {
    const Stage stage(Context::Background(), dir / "a/b", kKey, kMake);
    WriteFile(stage.path() / "file", "left");
  }
  EXPECT_EQ(ReadFile(PathOf(dir / "a/b") / "file"), "left");
  EXPECT_MSB_ERROR(Stage(Context::Background(), dir / "absent", kKey, kMustExist), ErrorKind::kIO,
                   "/absent: ");
  EXPECT_FALSE(fs::exists(dir / "absent"));
}

TEST(KeptStageTest, WaitsForTheCallThatUsesItAndSeesWhatThatPublished) {
  const TempDir dir;
  Leave(dir.path());
  std::optional<Stage> first;
  first.emplace(Context::Background(), dir.path(), kKey, kMustExist);
  EXPECT_MSB_ERROR(Stage(Context::Background().WithTimeout(std::chrono::milliseconds(50)),
                         dir.path(), kKey, kMustExist),
                   ErrorKind::kCancelled, "deadline exceeded");
  std::atomic<bool> is_done = false;
  std::thread second([&] {
    const Stage stage(test::Soon(), dir.path(), kKey, kMustExist);
    EXPECT_TRUE(is_done);
    EXPECT_EQ(ReadFile(dir / "a/file"), "left");
    EXPECT_EQ(ListTree(stage.path()), Tree());
  });
  EXPECT_TRUE(first->PublishEntry("a", "a"));
  is_done = true;
  first.reset();
  second.join();
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
}

// Each call but the first has to wait, and finds the entry that the first has published.
TEST(KeptStageTest, ConcurrentCallsTakeTurns) {
  const TempDir dir;
  std::atomic<int> users = 0;
  std::atomic<int> published = 0;
  const auto use = [&] {
    Stage stage(test::Soon(), dir / "new", kKey, kMake);
    EXPECT_EQ(++users, 1);
    if (!fs::exists(dir / "new/a")) {
      WriteFile(stage.path() / "a/file", "content");
      EXPECT_TRUE(stage.PublishEntry("a", "a"));
      ++published;
    }
    SweepStages(Context::Background(), dir / "new", Unexpected);
    EXPECT_EQ(--users, 0);
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) threads.emplace_back(use);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(published, 1);
  EXPECT_EQ(ReadFile(dir / "new/a/file"), "content");
  EXPECT_EQ(ListTree(dir.path()).size(), 3U);
}

TEST(KeptStageTest, FollowsNoLinkAndReplacesNoFile) {
  const TempDir dir;
  WriteFile(dir / "outside/file", "precious");
  fs::create_directory_symlink(dir / "outside", PathOf(dir.path()));
  WriteFile(PathOf(dir.path(), std::string(64, 'b')), "a file");
  const Tree before = ListTree(dir.path());
  EXPECT_MSB_ERROR(Stage(Context::Background(), dir.path(), kKey, kMustExist), ErrorKind::kIO,
                   "must be a directory, but is a symbolic link: remove it");
  EXPECT_MSB_ERROR(Stage(Context::Background(), dir.path(), std::string(64, 'b'), kMustExist),
                   ErrorKind::kIO, "must be a directory, but is a regular file: remove it");
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(KeptStageTest, RefusesTheDirectoryOfAnotherUser) {
  const TempDir dir;
  Leave(dir.path());
  if (chown(PathOf(dir.path()).c_str(), 1, 1) != 0) GTEST_SKIP() << "this needs root";
  EXPECT_MSB_ERROR(Stage(Context::Background(), dir.path(), kKey, kMustExist), ErrorKind::kIO,
                   PathOf(dir.path()).native(), "belongs to another user", "remove it");
  EXPECT_EQ(ReadFile(PathOf(dir.path()) / "a/file"), "left");
  EXPECT_EQ(ListTree(dir.path()).size(), 3U);
}

TEST(KeptStageTest, RefusesAnythingButADigestAsItsKey) {
  const TempDir dir;
  for (const std::string& key :
       {std::string(), std::string(63, 'a'), std::string(64, 'A'), std::string(64, '/')}) {
    EXPECT_MSB_ERROR(Stage(Context::Background(), dir.path(), key, kMustExist),
                     ErrorKind::kInternal, "64 lower-case hex digits");
  }
  EXPECT_EQ(ListTree(dir.path()), Tree());
}

TEST(KeptStageTest, IsSweptOnlyWhenItsContentIsOld) {
  const TempDir dir;
  Leave(dir.path());
  const Tree left = ListTree(dir.path());
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), left);
  SetAge(PathOf(dir.path()), kKeptStageAge - std::chrono::hours(1));
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), left);
  // One file that is recent keeps all of it.
  SetAge(PathOf(dir.path()), kKeptStageAge + std::chrono::hours(1));
  const timespec now{.tv_sec = 0, .tv_nsec = UTIME_NOW};
  const std::array<timespec, 2> times = {now, now};
  ASSERT_EQ(utimensat(AT_FDCWD, (PathOf(dir.path()) / "a/file").c_str(), times.data(), 0), 0);
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), left);
  SetAge(PathOf(dir.path()), kKeptStageAge + std::chrono::hours(1));
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), Tree());
}

TEST(KeptStageTest, IsNeverSweptWhileItIsLocked) {
  const TempDir dir;
  Leave(dir.path());
  {
    const Stage stage(Context::Background(), dir.path(), kKey, kMustExist);
    SetAge(stage.path(), kKeptStageAge + std::chrono::hours(1));
    SweepStages(Context::Background(), dir.path(), Unexpected);
    EXPECT_EQ(ReadFile(stage.path() / "a/file"), "left");
  }
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), Tree());
}

TEST(KeptStageTest, IsRecentOnceItIsOpened) {
  const TempDir dir;
  Leave(dir.path());
  SetAge(PathOf(dir.path()), kKeptStageAge + std::chrono::hours(1));
  { const Stage stage(Context::Background(), dir.path(), kKey, kMustExist); }
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ReadFile(PathOf(dir.path()) / "a/file"), "left");
}

// Other software may use names that begin in the same way.
TEST(KeptStageTest, OnlyNamesWithADomainAndAKeyAreSwept) {
  const TempDir dir;
  for (const std::string& name : {".msb-pull-" + kKey, ".msb-pull-01234567-" + kKey + "a",
                                  ".msb-pull-0123456-" + kKey, std::string(".msb-pull-")}) {
    WriteFile(dir / name / "file", "kept");
    SetAge(dir / name, kKeptStageAge + std::chrono::hours(1));
  }
  const Tree before = ListTree(dir.path());
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), before);
}

// The stage of a process whose locks are not visible here expires in the same way.
TEST(KeptStageTest, OfAnotherDomainIsSweptWhenItsContentIsOld) {
  const TempDir dir;
  const fs::path foreign = dir / (".msb-pull-01234567-" + kKey);
  WriteFile(foreign / "file", "another host's");
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_TRUE(fs::exists(foreign / "file"));
  SetAge(foreign, kKeptStageAge + std::chrono::hours(1));
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_FALSE(fs::exists(foreign));
}

}  // namespace
}  // namespace msb::base
