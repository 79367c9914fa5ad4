// SPDX-License-Identifier: Apache-2.0
//
// Sweeping what interrupted calls left, and the locks that prevent a sweep.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "src/base/staging.h"
#include "tests/support/limits.h"
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

TEST(SweepStagesTest, DeletesStagesOfInterruptedCalls) {
  const TempDir dir;
  WriteFile(dir / ".msb-stage-0123456789abcdef/sub/file", "left");
  WriteFile(dir / "kept/file", "kept");
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
  EXPECT_EQ(ReadFile(dir / "kept/file"), "kept");
  EXPECT_NO_THROW(SweepStages(Context::Background(), dir / "absent", Unexpected));
}

TEST(SweepStagesTest, KeepsStagesThatAreInUse) {
  const TempDir dir;
  Stage first(dir.path());
  WriteNewFileAt(first.fd(), "file", "first", 0600);
  WriteFile(dir / "old/file", "hidden");
  LockedDirectory hidden = LockedDirectory::Open(Context::Background(), dir.path(), "old");
  hidden.Hide();
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_TRUE(first.Publish("first"));
  EXPECT_EQ(ReadFile(dir / "first/file"), "first");
  EXPECT_TRUE(hidden.PutBack());
  EXPECT_EQ(ReadFile(dir / "old/file"), "hidden");
}

TEST(SweepStagesTest, DeletesOnlyDirectoriesOfItsOwn) {
  const TempDir dir;
  const TempDir outside;
  WriteFile(outside / "file", "kept");
  WriteFile(dir / ".msb-stage-file", "kept");
  WriteFile(dir / ".msb-other/file", "kept");
  WriteFile(dir / "msb-stage-visible/file", "kept");
  fs::create_directory_symlink(outside.path(), dir / ".msb-stage-link");
  const Tree before = ListTree(dir.path());
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), before);
  EXPECT_EQ(ReadFile(outside / "file"), "kept");
}

TEST(SweepStagesTest, StopsWhenItsContextEnds) {
  const TempDir dir;
  WriteFile(dir / ".msb-stage-1/file", "");
  WriteFile(dir / ".msb-stage-2/file", "");
  const Tree before = ListTree(dir.path());
  const auto [ctx, cancel] = Context::Background().WithCancel();
  cancel();
  SweepStages(ctx, dir.path(), Unexpected);
  SweepStages(Context::Background().WithTimeout(std::chrono::nanoseconds(1)), dir.path(),
              Unexpected);
  EXPECT_EQ(ListTree(dir.path()), before);
}

TEST(SweepStagesTest, ReportsStagesThatCannotBeDeleted) {
  const TempDir dir;
  WriteFile(dir / ".msb-stage-1/kept", "");
  WriteFile(dir / ".msb-stage-1/a/b/gone", "");
  WriteFile(dir / ".msb-stage-2/gone", "");
  test::ImmutableFile file(dir / ".msb-stage-1/kept", dir.path());
  if (!file.is_set()) GTEST_SKIP() << "chattr +i is not possible here";
  std::vector<std::string> told;
  const auto log = [&](std::string_view message) { told.emplace_back(message); };
  SweepStages(Context::Background(), dir.path(), log);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_NE(told[0].find((dir / ".msb-stage-1").native()), std::string::npos) << told[0];
  EXPECT_NE(told[0].find("the next call tries again"), std::string::npos) << told[0];
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
  file.Clear();
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), Tree());
}

TEST(LockedDirectoryTest, IsEmptyUnlessThePathIsADirectory) {
  const TempDir dir;
  WriteFile(dir / "file", "kept");
  fs::create_directory_symlink(dir.path(), dir / "link");
  for (const char* name : {"file", "link", "absent"}) {
    EXPECT_FALSE(LockedDirectory::Open(Context::Background(), dir.path(), name)) << name;
  }
  EXPECT_FALSE(LockedDirectory::Open(Context::Background(), dir / "absent", "name"));
}

TEST(LockedDirectoryTest, HidesAndDeletes) {
  const TempDir dir;
  WriteFile(dir / "name/sub/file", "gone");
  WriteFile(dir / "other/file", "kept");
  LockedDirectory name = LockedDirectory::Open(Context::Background(), dir.path(), "name");
  ASSERT_TRUE(name);
  EXPECT_EQ(name.path(), dir / "name");
  name.Hide();
  EXPECT_FALSE(fs::exists(dir / "name"));
  EXPECT_EQ(ReadFile(name.path() / "sub/file"), "gone");
  EXPECT_TRUE(name.Delete(Context::Background()));
  EXPECT_EQ(ListTree(dir.path()).size(), 2U);
  EXPECT_EQ(ReadFile(dir / "other/file"), "kept");
}

TEST(LockedDirectoryTest, NeverHidesADirectoryThatIsNotLocked) {
  const TempDir dir;
  fs::create_directory(dir / "name");
  LockedDirectory name = LockedDirectory::Open(Context::Background(), dir.path(), "name");
  fs::rename(dir / "name", dir / "moved");
  WriteFile(dir / "name/file", "precious");
  EXPECT_MSB_ERROR(name.Hide(), ErrorKind::kIO, "/name was replaced by another program",
                   "try again");
  EXPECT_EQ(ReadFile(dir / "name/file"), "precious");
}

TEST(LockedDirectoryTest, IsNotPutBackOverAnExistingEntry) {
  const TempDir dir;
  WriteFile(dir / "name/file", "old");
  LockedDirectory name = LockedDirectory::Open(Context::Background(), dir.path(), "name");
  name.Hide();
  WriteFile(dir / "name/file", "new");
  EXPECT_FALSE(name.PutBack());
  EXPECT_EQ(ReadFile(dir / "name/file"), "new");
  EXPECT_EQ(ReadFile(name.path() / "file"), "old");
}

TEST(LockedDirectoryTest, LeavesALargeTreeToTheNextSweepWhenItsTimeIsOver) {
  const TempDir dir;
  for (int i = 0; i < 200; ++i) WriteFile(dir / ("name/" + std::to_string(i)), "");
  const auto [ctx, cancel] = Context::Background().WithCancel();
  LockedDirectory name = LockedDirectory::Open(ctx, dir.path(), "name");
  name.Hide();
  cancel();
  EXPECT_FALSE(name.Delete(ctx));
  name = LockedDirectory();
  SweepStages(Context::Background(), dir.path(), Unexpected);
  EXPECT_EQ(ListTree(dir.path()), Tree());
}

TEST(LockedDirectoryTest, NamesTheHiddenDirectoryThatCannotBeDeleted) {
  const TempDir dir;
  WriteFile(dir / "name/kept", "");
  WriteFile(dir / "name/gone", "");
  const test::ImmutableFile file(dir / "name/kept", dir.path());
  if (!file.is_set()) GTEST_SKIP() << "chattr +i is not possible here";
  LockedDirectory name = LockedDirectory::Open(Context::Background(), dir.path(), "name");
  name.Hide();
  const fs::path hidden = name.path();
  try {
    name.Delete(Context::Background());
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kIO);
    EXPECT_NE(std::string(e.what()).find(hidden.native()), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("tries again"), std::string::npos) << e.what();
  }
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

TEST(LockTest, ASharedLockKeepsOnlyExclusiveOnesOut) {
  const TempDir dir;
  const UniqueFd exclusive = OpenDirectory(dir.path());
  UniqueFd first = OpenDirectory(dir.path());
  UniqueFd second = OpenDirectory(dir.path());
  ASSERT_TRUE(TryLock(first.get(), LockMode::kShared));
  ASSERT_TRUE(TryLock(second.get(), LockMode::kShared));
  first.Reset(-1);
  EXPECT_FALSE(TryLock(exclusive.get()));
  second.Reset(-1);
  EXPECT_TRUE(TryLock(exclusive.get()));
  EXPECT_FALSE(TryLock(OpenDirectory(dir.path()).get(), LockMode::kShared));
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
  EXPECT_MSB_ERROR(Lock(ctx, second.get()), ErrorKind::kCancelled, "cancelled");
  EXPECT_MSB_ERROR(
      Lock(Context::Background().WithTimeout(std::chrono::milliseconds(20)), second.get()),
      ErrorKind::kCancelled, "deadline exceeded");
}

}  // namespace
}  // namespace msb::base
