// SPDX-License-Identifier: Apache-2.0

#include "src/base/process.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "msb/context.h"
#include "src/base/file.h"
#include "tests/support/limits.h"
#include "tests/support/missing_calls.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

// A child process that lives until End().
class Child {
 public:
  Child() {
    std::array<int, 2> pipe_ends{};
    if (pipe(pipe_ends.data()) != 0) ADD_FAILURE() << "no pipe";
    UniqueFd read_end(pipe_ends[0]);
    write_end_.Reset(pipe_ends[1]);
    pid_ = fork();
    if (pid_ == 0) {
      close(write_end_.get());
      char byte = 0;
      _exit(read(read_end.get(), &byte, 1) == 0 ? 0 : 1);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    write_end_.Reset(-1);
    Reap();
  }

  pid_t pid() const { return pid_; }

  // Ends the process, and returns when it is a zombie.
  void End() {
    write_end_.Reset(-1);
    siginfo_t info{};
    EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT), 0);
  }

  void Reap() {
    if (!reaped_) waitpid(pid_, nullptr, 0);
    reaped_ = true;
  }

 private:
  UniqueFd write_end_;
  pid_t pid_ = -1;
  bool reaped_ = false;
};

TEST(ProcessTest, ThisProcessIsAlive) {
  const ProcessIdentity self = ProcessIdentity::Self();
  EXPECT_EQ(self.pid, getpid());
  EXPECT_TRUE(self.IsAlive());
}

TEST(ProcessTest, TellsHostsWithAndWithoutAMachineIdApart) {
  EXPECT_TRUE(HasMachineId("worker/0123456789abcdef0123456789abcdef"));
  EXPECT_FALSE(HasMachineId("worker/"));
  EXPECT_FALSE(HasMachineId(""));
}

// A process must not be taken for one that has ended because no descriptor is free.
TEST(ProcessTest, LackOfDescriptorsIsAnError) {
  const ProcessIdentity self = ProcessIdentity::Self();
  const pid_t child = fork();
  if (child == 0) {
    test::LeaveDescriptors(1);
    const UniqueFd last = OpenDirectory("/");
    int failed = 0;
    for (const auto& call : std::vector<std::function<void()>>{
             [] { ProcessIdentity::Self(); }, [&] { static_cast<void>(self.IsAlive()); },
             [] { BootId(); }, [] { HostId(); }}) {
      try {
        call();
      } catch (const Error& e) {
        const bool names = test::Names(e.what(), {"cannot read /", "raise the limit (ulimit -n)"});
        failed += e.kind() == ErrorKind::kIO && names ? 1 : 0;
      }
    }
    _exit(failed);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 4);
}

TEST(ProcessTest, AChildIsAliveUntilItEnds) {
  Child child;
  const auto identity = ProcessIdentity::Of(child.pid());
  ASSERT_TRUE(identity);
  EXPECT_TRUE(identity->IsAlive());
  child.End();
  child.Reap();
  EXPECT_FALSE(identity->IsAlive());
  EXPECT_FALSE(ProcessIdentity::Of(child.pid()));
}

TEST(ProcessTest, AnUnreapedChildIsNotAlive) {
  Child child;
  const auto identity = ProcessIdentity::Of(child.pid());
  ASSERT_TRUE(identity);
  child.End();
  EXPECT_EQ(kill(child.pid(), 0), 0);  // Its pid is still taken.
  EXPECT_FALSE(identity->IsAlive());
  EXPECT_FALSE(ProcessIdentity::Of(child.pid()));
}

// If only the first thread has ended, the others may still write to files.
TEST(ProcessTest, AProcessIsAliveAsLongAsOneOfItsThreads) {
  const pid_t child = fork();
  if (child == 0) {
    std::thread(pause).detach();
    syscall(SYS_exit, 0);
  }
  const auto state = [&] {
    std::string stat;
    std::getline(std::ifstream("/proc/" + std::to_string(child) + "/stat"), stat);
    return stat.at(stat.rfind(')') + 2);
  };
  while (state() != 'Z') std::this_thread::yield();
  EXPECT_TRUE(ProcessIdentity::Of(child));
  kill(child, SIGKILL);
  siginfo_t info{};
  EXPECT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(ProcessIdentity::Of(child));
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST(ProcessTest, AnotherProcessWithTheSamePidIsNotTheOne) {
  ProcessIdentity other = ProcessIdentity::Self();
  ++other.start_ticks;
  EXPECT_FALSE(other.IsAlive());
}

// The process that has the pid now may be the one that was recorded.
TEST(ProcessTest, ProcessWithoutAStartTimeMayBeAlive) {
  Child child;
  auto identity = ProcessIdentity::Of(child.pid());
  ASSERT_TRUE(identity);
  identity->start_ticks = 0;
  EXPECT_TRUE(identity->IsAlive());
  EXPECT_FALSE(ProcessHandle::Open(*identity));
  child.End();
  child.Reap();
  EXPECT_FALSE(identity->IsAlive());
}

TEST(ProcessTest, PidsThatNameNoProcessAreNotAlive) {
  EXPECT_FALSE(ProcessIdentity::Of(0));
  EXPECT_FALSE(ProcessIdentity::Of(-1));
  EXPECT_FALSE(ProcessIdentity::Of(1 << 30));
  EXPECT_FALSE(ProcessIdentity().IsAlive());
}

TEST(ProcessTest, AProgramsNameConfusesNothing) {
  std::array<char, 16> name{};
  ASSERT_EQ(prctl(PR_GET_NAME, name.data()), 0);
  const ProcessIdentity before = ProcessIdentity::Self();
  ASSERT_EQ(prctl(PR_SET_NAME, ") Z 1 (2) 3\n4"), 0);
  EXPECT_TRUE(before.IsAlive());
  prctl(PR_SET_NAME, name.data());
}

TEST(ProcessTest, ReturnsTheStartTimeOfAProcess) {
  const auto before = std::chrono::system_clock::now();
  const Child child;
  const auto after = std::chrono::system_clock::now();
  const auto identity = ProcessIdentity::Of(child.pid());
  ASSERT_TRUE(identity);
  // Clock ticks are coarse, and the clocks are read one after another.
  EXPECT_GT(identity->StartTime(), before - std::chrono::seconds(2));
  EXPECT_LT(identity->StartTime(), after + std::chrono::seconds(2));
}

std::optional<ProcessHandle> HandleOf(pid_t pid) {
  const auto identity = ProcessIdentity::Of(pid);
  return identity ? ProcessHandle::Open(*identity) : std::nullopt;
}

TEST(ProcessTest, FindsAVariableInAnEnvironment) {
  const pid_t child = fork();
  if (child == 0) {
    execle("/bin/sleep", "sleep", "100", nullptr,
           std::array<const char*, 3>{"A=b", "C=d e", nullptr}.data());
    _exit(1);
  }
  // Until it executes the program it has this process's environment, and for a moment none.
  const Context patience = Context::Background().WithTimeout(std::chrono::seconds(30));
  std::optional<ProcessIdentity> process;
  do {
    process = ProcessIdentity::Of(child);
  } while (process && !HasInEnvironment(*process, "C=d e") && !patience.Done());
  ASSERT_TRUE(process);
  EXPECT_TRUE(HasInEnvironment(*process, "C=d e"));
  EXPECT_TRUE(HasInEnvironment(*process, "A=b"));
  for (const char* other : {"C=d", "A", "", "=b"}) EXPECT_FALSE(HasInEnvironment(*process, other));
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(HasInEnvironment(*process, "A=b"));
}

TEST(ProcessHandleTest, SeesAProcessEnd) {
  Child child;
  const auto process = HandleOf(child.pid());
  ASSERT_TRUE(process);
  std::thread other([&] { child.End(); });
  EXPECT_TRUE(process->AwaitEnd(test::Soon()));  // A zombie, or about to be.
  other.join();
  child.Reap();
  EXPECT_TRUE(process->AwaitEnd(test::Soon()));
}

TEST(ProcessHandleTest, WaitsNoLongerThanItMay) {
  const Child child;
  const auto process = HandleOf(child.pid());
  ASSERT_TRUE(process);
  EXPECT_FALSE(process->AwaitEnd(Context::Background().WithTimeout(std::chrono::milliseconds(70))));
  const auto [ctx, cancel] = test::Soon().WithCancel();
  std::thread other(cancel);
  EXPECT_FALSE(process->AwaitEnd(ctx));
  other.join();
}

TEST(ProcessHandleTest, KillsARunningProcess) {
  Child child;
  const auto process = HandleOf(child.pid());
  ASSERT_TRUE(process);
  process->Kill();
  EXPECT_TRUE(process->AwaitEnd(test::Soon()));
  // It has ended, so AwaitEnd returns true even without time to wait.
  EXPECT_TRUE(process->AwaitEnd(Context::Background().WithTimeout(std::chrono::seconds(0))));
  process->Kill();
  child.Reap();
  process->Kill();
}

// Kernels before Linux 5.3 lack the descriptors, and old seccomp profiles refuse them.
TEST(ProcessHandleTest, WorksWithoutProcessDescriptors) {
  for (const int error : {ENOSYS, EPERM}) {
    const auto refused = test::RunWithout({{"pidfd_open", SYS_pidfd_open, error}}, [] {
      Child child;
      const auto process = HandleOf(child.pid());
      if (!process) return "no handle";
      if (process->AwaitEnd(Context::Background().WithTimeout(std::chrono::milliseconds(70)))) {
        return "a child that runs counts as ended";
      }
      process->Kill();
      if (!process->AwaitEnd(test::Soon())) return "a child that was killed does not end";
      process->Reap();
      if (kill(child.pid(), 0) == 0) return "the child was not reaped";
      process->Kill();
      return "done";
    });
    EXPECT_EQ(refused, "done");
  }
}

TEST(ProcessHandleTest, SaysWhoCanKillTheProcessOfAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  const Child child;
  const auto process = HandleOf(child.pid());
  ASSERT_TRUE(process);
  const pid_t other = fork();
  if (other == 0) {
    int status = 1;
    if (setuid(65534) == 0) {
      try {
        process->Kill();
      } catch (const Error& e) {
        const bool names = test::Names(
            e.what(), {"cannot kill process " + std::to_string(child.pid()),
                       "this process runs as user 65534", "stop it as its user or as root"});
        status = e.kind() == ErrorKind::kIO && names ? 0 : 2;
      }
    }
    _exit(status);
  }
  int status = 0;
  waitpid(other, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ProcessHandleTest, ReapsAChildThatHasEnded) {
  Child child;
  const auto process = HandleOf(child.pid());
  ASSERT_TRUE(process);
  process->Reap();
  EXPECT_EQ(kill(child.pid(), 0), 0) << "it must go on";
  child.End();
  process->Reap();
  EXPECT_EQ(kill(child.pid(), 0), -1);
  EXPECT_EQ(errno, ESRCH);
  process->Reap();
}

TEST(ProcessHandleTest, IsOfNoOtherProcess) {
  Child child;
  auto identity = ProcessIdentity::Of(child.pid());
  ASSERT_TRUE(identity);
  EXPECT_TRUE(ProcessHandle::Open(*identity));
  ++identity->start_ticks;
  EXPECT_FALSE(ProcessHandle::Open(*identity));
  --identity->start_ticks;
  identity->boot_id += "?";
  EXPECT_FALSE(ProcessHandle::Open(*identity));
  EXPECT_FALSE(identity->IsAlive());
  identity->boot_id = BootId();
  EXPECT_TRUE(identity->IsAlive());
  child.End();
  EXPECT_FALSE(ProcessHandle::Open(*identity));
  child.Reap();
  EXPECT_FALSE(ProcessHandle::Open(*identity));
  EXPECT_FALSE(ProcessHandle::Open({}));
  EXPECT_FALSE(ProcessHandle::Open({.pid = 1 << 30}));
}

}  // namespace
}  // namespace msb::base
