// SPDX-License-Identifier: Apache-2.0
//
// Renaming and locking on file systems that lack a system call.

#include "src/base/rename.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "src/base/call_scope.h"
#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/staging.h"
#include "tests/support/missing_calls.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;
using test::MissingCall;
using test::ReadFile;
using test::RunWithout;
using test::TempDir;
using test::WriteFile;

// Returns "ok" or a description of the problem, for code that runs in another process.
std::string Answer(bool is_right, const std::string& problem) {
  return is_right ? "ok"
                  : problem + ": " + std::error_code(errno, std::generic_category()).message();
}

class MissingRenameTest : public ::testing::TestWithParam<int> {
 protected:
  std::string Run(const std::function<std::string()>& code) {
    return RunWithout({test::NoRenameFlags(GetParam())}, code);
  }

  const TempDir dir_;
};

TEST_P(MissingRenameTest, PublishesAStage) {
  EXPECT_EQ(Run([&] {
              Stage stage(dir_.path());
              WriteNewFileAt(stage.fd(), "file", "new", 0600);
              return Answer(stage.Publish("name"), "not published");
            }),
            "ok");
  EXPECT_EQ(ReadFile(dir_ / "name/file"), "new");
}

TEST_P(MissingRenameTest, DoesNotPublishOverADirectoryOrAFile) {
  WriteFile(dir_ / "name/file", "old");
  fs::create_directory(dir_ / "empty");
  WriteFile(dir_ / "plain", "old");
  for (const std::string name : {"name", "empty", "plain"}) {
    EXPECT_EQ(Run([&] {
                Stage stage(dir_.path());
                WriteNewFileAt(stage.fd(), "file", "new", 0600);
                return Answer(!stage.Publish(name), "published");
              }),
              "ok")
        << name;
  }
  EXPECT_EQ(ReadFile(dir_ / "name/file"), "old");
  EXPECT_TRUE(fs::is_empty(dir_ / "empty"));
  EXPECT_EQ(ReadFile(dir_ / "plain"), "old");
}

TEST_P(MissingRenameTest, ReplacesALockedDirectoryAndLeavesNothing) {
  WriteFile(dir_ / "name/file", "old");
  EXPECT_EQ(Run([&] {
              Stage stage(dir_.path());
              WriteNewFileAt(stage.fd(), "file", "new", 0600);
              const auto any = [](int, const fs::path&) { return true; };
              return Answer(stage.PublishOver(Context::Background(), "name", any), "not published");
            }),
            "ok");
  EXPECT_EQ(ReadFile(dir_ / "name/file"), "new");
  EXPECT_EQ(test::ListTree(dir_.path()).size(), 2U);
}

TEST_P(MissingRenameTest, WithdrawsTheReplacementOfADirectory) {
  WriteFile(dir_ / "name/file", "old");
  EXPECT_EQ(Run([&] {
              Stage stage(dir_.path());
              WriteNewFileAt(stage.fd(), "file", "new", 0600);
              stage.PublishOver(Context::Background(), "name",
                                [](int, const fs::path&) { return true; });
              return Answer(stage.Withdraw(), "not withdrawn");
            }),
            "ok");
  EXPECT_EQ(ReadFile(dir_ / "name/file"), "old");
  EXPECT_EQ(test::ListTree(dir_.path()).size(), 2U);
}

TEST_P(MissingRenameTest, HidesAndPutsBack) {
  WriteFile(dir_ / "name/file", "old");
  EXPECT_EQ(Run([&] {
              auto locked = LockedDirectory::Open(Context::Background(), dir_.path(), "name");
              locked.Hide();
              if (fs::exists(dir_ / "name")) return Answer(false, "still there");
              return Answer(locked.PutBack(), "not put back");
            }),
            "ok");
  EXPECT_EQ(ReadFile(dir_ / "name/file"), "old");
}

TEST_P(MissingRenameTest, MovesAFileButNotOverAnother) {
  WriteFile(dir_ / "a", "a");
  WriteFile(dir_ / "b", "b");
  EXPECT_EQ(Run([&] {
              const UniqueFd dir = OpenDirectory(dir_.path());
              if (RenameNew(dir.get(), "a", dir.get(), "b")) return Answer(false, "renamed");
              if (errno != EEXIST) return Answer(false, "another error");
              return Answer(RenameNew(dir.get(), "a", dir.get(), "c"), "not renamed");
            }),
            "ok");
  EXPECT_EQ(ReadFile(dir_ / "b"), "b");
  EXPECT_EQ(ReadFile(dir_ / "c"), "a");
  EXPECT_FALSE(fs::exists(dir_ / "a"));
}

TEST_P(MissingRenameTest, MovesAFileWithoutLinksToo) {
  WriteFile(dir_ / "a", "a");
  WriteFile(dir_ / "b", "b");
  const std::vector<MissingCall> missing = {test::NoRenameFlags(GetParam()), test::NoLinks(EPERM)};
  EXPECT_EQ(RunWithout(missing,
                       [&] {
                         const UniqueFd dir = OpenDirectory(dir_.path());
                         if (RenameNew(dir.get(), "a", dir.get(), "b"))
                           return Answer(false, "renamed");
                         return Answer(RenameNew(dir.get(), "a", dir.get(), "c"), "not renamed");
                       }),
            "ok");
  EXPECT_EQ(ReadFile(dir_ / "b"), "b");
  EXPECT_EQ(ReadFile(dir_ / "c"), "a");
}

// Creates and replaces two directories, and returns what is logged.
std::string LogOfReplacing(const fs::path& dir) {
  std::string messages;
  const LogFunction log =
      DeferredLog([&](std::string_view text) { messages += std::string(text) + "\n"; });
  for (const std::string name : {"one", "two"}) {
    Stage(dir).Publish(name);
    Stage(dir).PublishOver(Context::Background(), name, [](int, const fs::path&) { return true; });
  }
  return messages;
}

TEST_P(MissingRenameTest, LogsEachWeakerGuaranteeOnce) {
  const std::string logged = Run([&] { return LogOfReplacing(dir_.path()); });
  EXPECT_EQ(std::count(logged.begin(), logged.end(), '\n'), 2) << logged;
  EXPECT_NE(logged.find("RENAME_NOREPLACE"), std::string::npos) << logged;
  EXPECT_NE(logged.find("RENAME_EXCHANGE"), std::string::npos) << logged;
}

INSTANTIATE_TEST_SUITE_P(Errors, MissingRenameTest, ::testing::Values(EINVAL, ENOSYS, EOPNOTSUPP));

TEST(MissingExchangeTest, LogsTheWeakerGuaranteeOnce) {
  const TempDir dir;
  const MissingCall exchange = {
      "renameat2", SYS_renameat2, EINVAL,
      [](const test::InterceptedCall& call) { return (call.arguments[4] & RENAME_EXCHANGE) != 0; }};
  const std::string logged = RunWithout({exchange}, [&] { return LogOfReplacing(dir.path()); });
  EXPECT_EQ(std::count(logged.begin(), logged.end(), '\n'), 1) << logged;
  EXPECT_NE(logged.find("RENAME_EXCHANGE"), std::string::npos) << logged;
}

// Whichever call of the exchange a crash precedes, the next sweep leaves the old or the new
// directory at the name, and nothing else.
TEST(MissingExchangeTest, ACrashLeavesTheOldOrTheNewDirectory) {
  int killed = 0;
  for (int n = 0;; ++n) {
    const TempDir dir;
    WriteFile(dir / "name/file", "old");
    int seen = 0;
    const auto decide = [&](const test::InterceptedCall& call) {
      if (call.number == SYS_renameat2 && call.arguments[4] != 0) return EINVAL;
      return seen++ == n ? test::kKillChild : 0;
    };
    const auto run = test::RunIntercepted(
        {SYS_renameat2, SYS_renameat, SYS_rename, SYS_mkdirat, SYS_unlinkat, SYS_fsync}, decide,
        [&](const auto& begin) {
          Stage stage(dir.path());
          WriteNewFileAt(stage.fd(), "file", "new", 0600);
          begin();
          stage.PublishOver(Context::Background(), "name",
                            [](int, const fs::path&) { return true; });
          return std::string();
        });
    SweepStages(Context::Background(), dir.path(),
                [](std::string_view message) { ADD_FAILURE() << message; });
    const std::string content = ReadFile(dir / "name/file");
    EXPECT_TRUE(content == "old" || content == "new") << run.first;
    EXPECT_EQ(test::ListTree(dir.path()).size(), 2U) << run.first;
    if (!run.killed) {
      EXPECT_EQ(content, "new");
      break;
    }
    ++killed;
  }
  EXPECT_GT(killed, 5);
}

// Readers repair this themselves, and do not wait for the next call that changes something.
TEST(AwaitExchangeTest, PutsBackADirectoryThatAnInterruptedCallMovedAside) {
  const TempDir dir;
  const std::string aside = NewHiddenName(OpenDirectory(dir.path()).get(), kAsidePrefix);
  WriteFile(dir / aside / "name/file", "old");
  EXPECT_FALSE(AwaitExchange(dir / "other"));
  EXPECT_FALSE(fs::exists(dir / "name"));
  EXPECT_TRUE(AwaitExchange(dir / "name"));
  EXPECT_EQ(ReadFile(dir / "name/file"), "old");
  EXPECT_EQ(test::ListTree(dir.path()).size(), 2U);
  EXPECT_FALSE(AwaitExchange(dir / "absent/name"));
}

TEST(AwaitExchangeTest, WaitsForACallThatIsNotInterrupted) {
  const TempDir dir;
  const UniqueFd parent = OpenDirectory(dir.path());
  const std::string aside = NewHiddenName(parent.get(), kAsidePrefix);
  WriteFile(dir / aside / "name/file", "old");
  std::optional<LockedFd> lock;
  UniqueFd fd = OpenDirectory(dir / aside);
  ASSERT_TRUE(TryLock(fd.get()));
  lock.emplace(std::move(fd));
  std::thread other([&] {
    WriteFile(dir / "stage/file", "new");
    fs::rename(dir / "stage", dir / "name");
  });
  EXPECT_TRUE(AwaitExchange(dir / "name"));
  other.join();
  EXPECT_EQ(ReadFile(dir / "name/file"), "new");
  EXPECT_TRUE(fs::exists(dir / aside));
}

// Fails as overlayfs does for directories of a lower layer until they have been copied up.
MissingCall NoMoveOf(const std::string& dir, const std::string& name, ino_t inode) {
  return {"renameat2", SYS_renameat2, EXDEV, [=](const test::InterceptedCall& call) {
            struct stat st;
            const bool exchanges = (call.arguments[4] & RENAME_EXCHANGE) != 0;
            return (call.Text(1) == name || (exchanges && call.Text(3) == name)) &&
                   stat((dir + "/" + name).c_str(), &st) == 0 && st.st_ino == inode;
          }};
}

class ImmovableTest : public ::testing::Test {
 protected:
  ImmovableTest() {
    WriteFile(dir_ / "name/file", "old");
    WriteFile(dir_ / "name/sub/file", "old too");
    chmod((dir_ / "name/sub").c_str(), 0750);
  }

  MissingCall Immovable() {
    struct stat st {};
    EXPECT_EQ(stat((dir_ / "name").c_str(), &st), 0);
    return NoMoveOf(dir_.path(), "name", st.st_ino);
  }

  const TempDir dir_;
};

TEST_F(ImmovableTest, IsReplaced) {
  EXPECT_EQ(RunWithout({Immovable()},
                       [&] {
                         Stage stage(dir_.path());
                         WriteNewFileAt(stage.fd(), "file", "new", 0600);
                         const auto any = [](int, const fs::path&) { return true; };
                         return Answer(stage.PublishOver(Context::Background(), "name", any),
                                       "not published");
                       }),
            "ok");
  EXPECT_EQ(ReadFile(dir_ / "name/file"), "new");
  EXPECT_EQ(test::ListTree(dir_.path()).size(), 2U);
}

TEST_F(ImmovableTest, IsHiddenPutBackAndRemoved) {
  const auto before = test::ListTree(dir_.path());
  EXPECT_EQ(RunWithout({Immovable()},
                       [&] {
                         auto locked =
                             LockedDirectory::Open(Context::Background(), dir_.path(), "name");
                         locked.Hide();
                         if (fs::exists(dir_ / "name")) return Answer(false, "still there");
                         return Answer(locked.PutBack(), "not put back");
                       }),
            "ok");
  EXPECT_EQ(test::ListTree(dir_.path()), before);
  EXPECT_EQ(fs::status(dir_ / "name/sub").permissions(), static_cast<fs::perms>(0750));
  EXPECT_EQ(RunWithout({Immovable()},
                       [&] {
                         auto locked =
                             LockedDirectory::Open(Context::Background(), dir_.path(), "name");
                         locked.Hide();
                         return Answer(locked.Delete(Context::Background()), "not deleted");
                       }),
            "ok");
  EXPECT_TRUE(fs::is_empty(dir_.path()));
}

TEST_F(ImmovableTest, IsThereOrGoneAfterACrash) {
  const auto before = test::ListTree(dir_.path());
  for (int n = 0;; ++n) {
    const MissingCall immovable = Immovable();
    int seen = 0;
    const auto decide = [&](const test::InterceptedCall& call) {
      if (call.number == immovable.number && immovable.matches(call)) return EXDEV;
      return seen++ == n ? test::kKillChild : 0;
    };
    const auto run = test::RunIntercepted(
        {SYS_renameat2, SYS_renameat, SYS_mkdirat, SYS_unlinkat, SYS_linkat}, decide,
        [&](const auto& begin) {
          auto locked = LockedDirectory::Open(Context::Background(), dir_.path(), "name");
          begin();
          locked.Hide();
          return std::string();
        });
    SweepStages(Context::Background(), dir_.path(),
                [](std::string_view message) { ADD_FAILURE() << message; });
    if (!run.killed || fs::is_empty(dir_.path())) {
      EXPECT_GT(n, 8);
      break;
    }
    EXPECT_EQ(test::ListTree(dir_.path()), before) << run.first;
  }
}

// A snapshot must not be found without its disk.
TEST(MakeRenameableTest, DeletesTheManifestBeforeTheDisk) {
  int killed = 0;
  for (int n = 0;; ++n) {
    const TempDir dir;
    // The file system may list the manifest after any of them.
    for (int i = 0; i < 8; ++i) {
      WriteFile(dir / fmt::format("name/disk-{}", i), "disk");
      if (i == 3) WriteFile(dir / "name/manifest.json", "{}");
    }
    int seen = 0;
    const auto decide = [&](const test::InterceptedCall& /*call*/) {
      return seen++ == n ? test::kKillChild : 0;
    };
    const auto run = test::RunIntercepted({SYS_unlinkat}, decide, [&](const auto& begin) {
      const UniqueFd parent = OpenDirectory(dir.path());
      UniqueFd fd = OpenDirectory(dir / "name");
      if (!TryLock(fd.get())) return std::string("not locked");
      LockedFd locked(std::move(fd));
      begin();
      MakeRenameable(parent.get(), "name", locked);
      return std::string();
    });
    EXPECT_EQ(run.report, "");
    if (fs::exists(dir / "name/manifest.json")) {
      for (int i = 0; i < 8; ++i) {
        EXPECT_TRUE(fs::exists(dir / fmt::format("name/disk-{}", i))) << run.first;
      }
    }
    if (!run.killed) break;
    ++killed;
  }
  EXPECT_GT(killed, 2);
}

class MissingLockTest : public ::testing::TestWithParam<int> {};

TEST_P(MissingLockTest, ExcludesOnlyThisProcess) {
  const TempDir dir;
  EXPECT_EQ(RunWithout({test::NoLocks(GetParam())},
                       [&] {
                         UniqueFd first = OpenDirectory(dir.path());
                         UniqueFd second = OpenDirectory(dir.path());
                         if (!TryLock(first.get())) return Answer(false, "not locked");
                         if (!IsLockOfProcess(first.get())) return Answer(false, "a real lock");
                         if (TryLock(second.get())) return Answer(false, "locked twice");
                         first.Reset(-1);
                         return Answer(TryLock(second.get()), "still locked");
                       }),
            "ok");
}

// A process that uses the stage could not be detected.
TEST_P(MissingLockTest, SweepsNoRecentStage) {
  const TempDir dir;
  const fs::path stage = dir / NewHiddenName(OpenDirectory(dir.path()).get(), kStagePrefix);
  WriteFile(stage / "file", "in use");
  EXPECT_EQ(RunWithout({test::NoLocks(GetParam())},
                       [&] {
                         SweepStages(Context::Background(), dir.path(), {});
                         return std::string("ok");
                       }),
            "ok");
  EXPECT_EQ(ReadFile(stage / "file"), "in use");
}

INSTANTIATE_TEST_SUITE_P(Errors, MissingLockTest, ::testing::Values(ENOLCK, ENOSYS, EOPNOTSUPP));

TEST(ForeignStageTest, IsKeptAlthoughItsLockIsFree) {
  const TempDir dir;
  const fs::path foreign = dir / ".msb-stage-01234567-0123456789abcdef";
  WriteFile(foreign / "file", "another host's");
  const fs::path own = dir / NewHiddenName(OpenDirectory(dir.path()).get(), kStagePrefix);
  WriteFile(own / "file", "left by a crash");
  SweepStages(Context::Background(), dir.path(), {});
  EXPECT_TRUE(fs::exists(foreign / "file"));
  EXPECT_FALSE(fs::exists(own));
}

TEST(MissingLinkTest, IsDistinguishedFromOtherFailures) {
  for (const int error : {EPERM, EACCES, ENOSYS, EMLINK, EOPNOTSUPP, EXDEV}) {
    const TempDir dir;
    WriteFile(dir / "file", "content");
    EXPECT_EQ(RunWithout({test::NoLinks(error)},
                         [&] {
                           const UniqueFd parent = OpenDirectory(dir.path());
                           return Answer(!TryLinkFile(dir / "file", parent.get(), "link"),
                                         "linked");
                         }),
              "ok");
  }
  EXPECT_FALSE(NeedsCopy(EIO));
  EXPECT_FALSE(NeedsCopy(ENOSPC));
}

TEST(LockDomainTest, IsThatOfTheFileSystem) {
  const TempDir dir;
  fs::create_directory(dir / "sub");
  const std::string domain = LockDomain(OpenDirectory(dir.path()).get());
  EXPECT_EQ(domain.size(), 8U);
  EXPECT_EQ(LockDomain(OpenDirectory(dir / "sub").get()), domain);
  EXPECT_NE(LockDomain(OpenDirectory("/proc").get()), domain);
}

TEST(MissingFlushTest, OfADirectoryIsNoError) {
  const TempDir dir;
  for (const int error : {EINVAL, EBADF, ENOTSUP, ENOSYS}) {
    EXPECT_EQ(RunWithout({test::NoDirectoryFlush(error)},
                         [&] {
                           Sync(OpenDirectory(dir.path()).get());
                           return std::string("ok");
                         }),
              "ok");
  }
  const std::string logged =
      RunWithout({test::NoDirectoryFlush(EINVAL)}, [&] { return LogOfReplacing(dir.path()); });
  EXPECT_EQ(std::count(logged.begin(), logged.end(), '\n'), 1) << logged;
  EXPECT_NE(logged.find("fsync"), std::string::npos) << logged;
  const std::string failed = RunWithout({test::NoDirectoryFlush(EIO)}, [&] {
    Sync(OpenDirectory(dir.path()).get());
    return std::string("ok");
  });
  EXPECT_NE(failed.find(dir.path().native()), std::string::npos) << failed;
}

}  // namespace
}  // namespace msb::base
