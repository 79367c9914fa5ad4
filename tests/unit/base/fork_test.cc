// SPDX-License-Identifier: Apache-2.0

#include "src/base/fork.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "src/base/process.h"
#include "src/base/spawn.h"
#include "src/base/sqlite.h"
#include "src/base/staging.h"
#include "src/base/throw.h"
#include "tests/support/limits.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

// Runs function in a forked process. Returns its exit status, or 100 if it did not exit by itself.
int InForkedProcess(const std::function<int()>& function) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    _exit(function());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

// Returns 0 if this process must not open a database.
int OpeningIsRefused(const std::filesystem::path& path) {
  try {
    Database(path, Database::Mode::kCreate);
  } catch (const Error& e) {
    return e.kind() == ErrorKind::kIO ? 0 : 2;
  }
  return 3;
}

TEST(ForkTest, EachForkedProcessHasAGenerationOfItsOwn) {
  const std::uint64_t ours = ForkGeneration();
  EXPECT_EQ(InForkedProcess([&] { return ForkGeneration() == ours ? 1 : 0; }), 0);
  EXPECT_EQ(ForkGeneration(), ours);
}

// Some of the threads are about to enter a section when another forks, and wait for it then.
TEST(ForkTest, AForkIsNeverInTheMiddleOfASection) {
  constexpr std::size_t kThreads = 4;
  std::atomic<int> inside = 0;
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        const ForkSafeSection section;
        ++inside;
        const ForkSafeSection nested;
        --inside;
      }
    });
  }
  int torn = 0;
  for (int i = 0; i < 200; ++i) {
    torn += InForkedProcess([&] { return inside == 0 && !ForkInterruptedSection() ? 0 : 1; });
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(torn, 0);
}

TEST(ForkTest, AForkDoesNotWaitForEver) {
  std::atomic<bool> inside = false;
  std::atomic<bool> stop = false;
  std::thread thread([&] {
    const ForkSafeSection section;
    inside = true;
    inside.notify_one();
    stop.wait(false);
  });
  inside.wait(false);
  const test::TempDir dir;
  EXPECT_EQ(InForkedProcess([&] {
              if (!ForkInterruptedSection()) return 1;
              const ForkSafeSection own;  // Usable nevertheless.
              return OpeningIsRefused(dir / "db");
            }),
            0);
  stop = true;
  stop.notify_one();
  thread.join();
  EXPECT_FALSE(ForkInterruptedSection());
}

// Closing the inherited connection would roll the parent's transaction back.
TEST(ForkTest, ForkWithinATransactionLeavesItToTheParent) {
  const test::TempDir dir;
  Database db(dir / "db", Database::Mode::kCreate);
  db.Execute("CREATE TABLE t (id INTEGER)");
  Transaction transaction(db);
  db.Execute("INSERT INTO t VALUES (1)");
  EXPECT_EQ(InForkedProcess([&] { return OpeningIsRefused(dir / "db"); }), 0);
  transaction.Commit();
  Statement count(db, "SELECT count(*) FROM t");
  ASSERT_TRUE(count.Step());
  EXPECT_EQ(count.Integer(0), 1);
}

TEST(ForkTest, AForkedProcessOpensADatabaseThatItsParentHasOpen) {
  const test::TempDir dir;
  Database db(dir / "db", Database::Mode::kCreate);
  db.Execute("PRAGMA journal_mode = WAL");
  db.Execute("CREATE TABLE t (id INTEGER)");
  db.Execute("INSERT INTO t VALUES (1)");
  EXPECT_EQ(InForkedProcess([&] {
              Database own(dir / "db", Database::Mode::kReadWrite);
              own.Execute("INSERT INTO t VALUES (2)");
              return 0;
            }),
            0);
  db.Execute("INSERT INTO t VALUES (3)");
  Statement count(db, "SELECT count(*) FROM t");
  ASSERT_TRUE(count.Step());
  EXPECT_EQ(count.Integer(0), 3);
}

// SQLite allocates memory under a mutex that a forked process would find locked.
TEST(ForkTest, ForkWaitsUntilAParameterIsBound) {
  const test::TempDir dir;
  std::atomic<bool> stop = false;
  std::atomic<bool> begun = false;
  std::thread thread([&] {
    const Database db(dir / "db", Database::Mode::kMemory);
    Statement statement(db, "SELECT ?1");
    const std::string text(100, 'x');
    for (; !stop; begun = true) statement.Bind(1, std::string_view(text));
  });
  while (!begun) std::this_thread::yield();
  int status = 0;
  for (int i = 0; i < 200 && status == 0; ++i) {
    status = InForkedProcess([&] {
      Database(dir / "db", Database::Mode::kMemory).Execute("CREATE TABLE t (id INTEGER)");
      return 0;
    });
  }
  stop = true;
  thread.join();
  EXPECT_EQ(status, 0);
}

// A process that believed that it had its parent's locks would take none of its own.
TEST(ForkTest, AForkedProcessTakesLocksOfItsOwn) {
  const test::TempDir dir;
  Database db(dir / "db", Database::Mode::kCreate);
  db.Execute("PRAGMA journal_mode = WAL");
  db.Execute("CREATE TABLE t (id INTEGER)");
  auto to_parent = OpenPipe();
  auto to_child = OpenPipe();
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    to_child.second.Reset(-1);
    Database own(dir / "db", Database::Mode::kReadWrite);
    const Transaction transaction(own);
    char byte = 0;
    _exit(write(to_parent.second.get(), "x", 1) == 1 && read(to_child.first.get(), &byte, 1) == 0
              ? 0
              : 1);
  }
  char byte = 0;
  EXPECT_EQ(read(to_parent.first.get(), &byte, 1), 1);
  db.Bind(Context::Background().WithTimeout(std::chrono::milliseconds(1)));
  EXPECT_MSB_ERROR(Transaction{db}, ErrorKind::kCancelled, "deadline exceeded");
  to_child.second.Reset(-1);
  int status = -1;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

// A process that was forked from this one and lives on.
class Bystander {
 public:
  Bystander() : pid_(fork()) {
    if (pid_ != 0) return;
    alarm(60);
    pause();
    _exit(0);
  }
  Bystander(const Bystander&) = delete;
  Bystander& operator=(const Bystander&) = delete;
  ~Bystander() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

 private:
  const pid_t pid_;
};

TEST(ForkTest, ALockEndsAlthoughAForkedProcessLivesOn) {
  const test::TempDir dir;
  UniqueFd locked = OpenDirectory(dir.path());
  ASSERT_TRUE(TryLock(locked.get()));
  const Bystander bystander;
  locked.Reset(-1);
  const UniqueFd again = OpenDirectory(dir.path());
  EXPECT_TRUE(TryLock(again.get()));
}

TEST(ForkTest, ALockEndsWithItsProcessAlthoughAForkedOneLivesOn) {
  const test::TempDir dir;
  auto alive = OpenPipe();
  auto begun = OpenPipe();
  const pid_t pid = fork();
  if (pid == 0) {
    const UniqueFd locked = OpenDirectory(dir.path());
    TryLock(locked.get());
    if (fork() == 0) {
      char byte = 0;
      if (write(begun.second.get(), "x", 1) != 1) _exit(1);
      alive.second.Reset(-1);
      alarm(60);
      _exit(read(alive.first.get(), &byte, 1) == 0 ? 0 : 1);
    }
    kill(getpid(), SIGKILL);
  }
  waitpid(pid, nullptr, 0);
  // The forked process releases the lock when it begins to run, which may be later.
  char byte = 0;
  ASSERT_EQ(read(begun.first.get(), &byte, 1), 1);
  const UniqueFd again = OpenDirectory(dir.path());
  EXPECT_TRUE(TryLock(again.get()));
}

TEST(ForkTest, ForkedProcessHasNoLockedDescriptorWithAHighNumber) {
  constexpr int kHigh = 10'000;
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max <= kHigh) GTEST_SKIP() << "needs more descriptors (ulimit -Hn)";
  limit.rlim_cur = limit.rlim_max;
  const test::TempDir dir;
  EXPECT_EQ(InForkedProcess([&] {
              if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
              const UniqueFd locked(fcntl(OpenDirectory(dir.path()).get(), F_DUPFD_CLOEXEC, kHigh));
              if (!TryLock(locked.get())) return 2;
              return InForkedProcess([&] {
                // A placeholder, and not the locked directory.
                return (fcntl(locked.get(), F_GETFL) & O_PATH) != 0 ? 0 : 3;
              });
            }),
            0);
}

TEST(ForkTest, AForkedProcessHasNoLockedDescriptorIfNoneIsFree) {
  const test::TempDir dir;
  EXPECT_EQ(InForkedProcess([&] {
              const UniqueFd locked = OpenDirectory(dir.path());
              if (!TryLock(locked.get())) return 1;
              test::LeaveDescriptors(1);
              const UniqueFd last = OpenDirectory("/");
              return InForkedProcess([&] { return PathOf(locked.get()) != dir.path() ? 0 : 2; });
            }),
            0);
}

TEST(ForkTest, AProgramEndsWithItsLeashAlthoughAForkedProcessLivesOn) {
  std::optional<Leash> leash(std::in_place);
  const ProcessIdentity program = Spawn({.path = "/bin/sleep", .arguments = {"1000000"}}, *leash);
  const Bystander bystander;
  leash.reset();
  const auto handle = ProcessHandle::Open(program);
  EXPECT_TRUE(!handle || handle->AwaitEnd(Context::Background()));
}

TEST(ForkTest, ALazyValueIsMadeOnce) {
  static constinit Lazy<std::string> value;
  int made = 0;
  const auto make = [&] {
    ++made;
    return std::string("value");
  };
  std::string& first = value.Get(make);
  EXPECT_EQ(first, "value");
  EXPECT_EQ(&value.Get(make), &first);
  EXPECT_EQ(made, 1);
}

}  // namespace
}  // namespace msb::base
