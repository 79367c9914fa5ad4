// SPDX-License-Identifier: Apache-2.0

#include "src/base/spawn.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "src/base/file.h"
#include "src/base/process.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

struct Pipe {
  Pipe() {
    std::array<int, 2> fds{};
    if (pipe2(fds.data(), O_CLOEXEC) != 0) ADD_FAILURE() << "no pipe";
    out.Reset(fds[0]);
    in.Reset(fds[1]);
  }

  UniqueFd out;
  UniqueFd in;
};

// Reads up to the end of the line, or of the stream.
std::string ReadLine(const UniqueFd& fd) {
  std::string line;
  char byte = 0;
  while (!line.ends_with('\n') && read(fd.get(), &byte, 1) == 1) line += byte;
  return line;
}

bool HasEnded(const ProcessIdentity& identity) {
  const auto process = ProcessHandle::Open(identity);
  return !process || process->AwaitEnd(test::Soon());
}

Program Shell(const std::string& script) {
  return {.path = "/bin/sh", .arguments = {"-c", script}};
}

// Returns what a program writes until it ends.
std::string OutputOf(Program program) {
  const UniqueFd output = MakeMemoryFile();
  program.output = output.get();
  const Leash leash;
  EXPECT_TRUE(HasEnded(Spawn(program, leash)));
  return ReadAll(output.get(), 1 << 20).value_or("more than a mebibyte");
}

void ExpectNoChildren() {
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(SpawnTest, WritesBothOutputsToOne) {
  EXPECT_EQ(OutputOf(Shell("echo out; echo err >&2; echo again")), "out\nerr\nagain\n");
}

TEST(SpawnTest, RunsInItsDirectory) {
  const test::TempDir dir;
  Program program = Shell("pwd -P");
  program.directory = dir.path();
  EXPECT_EQ(OutputOf(program), std::filesystem::canonical(dir.path()).native() + "\n");
}

TEST(SpawnTest, ARelativePathIsThatOfThisProcess) {
  const test::TempDir dir;
  Program program = Shell("echo here");
  program.path = std::filesystem::proximate("/bin/sh");
  program.directory = dir.path();
  EXPECT_EQ(OutputOf(program), "here\n");
}

TEST(SpawnTest, HandsOnArgumentsAndEnvironment) {
  ASSERT_EQ(setenv("MSB_SPAWN_TEST", "of the environment", 1), 0);
  Program program = Shell("echo \"$0|$1|$2|$MSB_SPAWN_TEST\"");
  program.arguments.insert(program.arguments.end(), {"name", "", "a 'b' \"c\""});
  EXPECT_EQ(OutputOf(program), "name||a 'b' \"c\"|of the environment\n");
  unsetenv("MSB_SPAWN_TEST");
}

TEST(SpawnTest, StandardInputIsEmpty) { EXPECT_EQ(OutputOf({.path = "/bin/cat"}), ""); }

TEST(SpawnTest, InheritsOnlyTheGivenDescriptors) {
  const UniqueFd given = MakeMemoryFile();
  WriteExactly(given.get(), "given\n", 6, 0);
  const UniqueFd other = MakeMemoryFile();
  const UniqueFd leaky(fcntl(other.get(), F_DUPFD, 3));  // Without FD_CLOEXEC.
  Program program =
      Shell(fmt::format("cat /proc/self/fd/{}; for fd in {} {}; do test ! -e /proc/$$/fd/$fd || "
                        "echo leaked $fd; done",
                        given.get(), other.get(), leaky.get()));
  program.inherited = {given.get()};
  EXPECT_EQ(OutputOf(program), "given\n");
  EXPECT_EQ(fcntl(given.get(), F_GETFD), FD_CLOEXEC);  // In this process nothing has changed.
  EXPECT_EQ(fcntl(leaky.get(), F_GETFD), 0);
}

TEST(SpawnTest, HasNoSignalsBlockedOrIgnored) {
  sigset_t blocked;
  sigset_t old;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &blocked, &old), 0);
  const auto old_handler = std::signal(SIGPIPE, SIG_IGN);
  const std::string output =
      OutputOf({.path = "/bin/grep", .arguments = {"-hE", "^Sig(Blk|Ign)", "/proc/self/status"}});
  EXPECT_EQ(output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
  std::signal(SIGPIPE, old_handler);
  sigset_t now;
  ASSERT_EQ(pthread_sigmask(SIG_SETMASK, &old, &now), 0);
  EXPECT_EQ(sigismember(&now, SIGTERM), 1);  // Spawn has restored the mask.
  EXPECT_EQ(sigismember(&now, SIGINT), 0);
}

TEST(SpawnTest, ReturnsTheIdentityOfTheProgram) {
  Pipe pipe;
  Program program = Shell(fmt::format("read line </proc/self/fd/{}", pipe.out.get()));
  program.inherited = {pipe.out.get()};
  const Leash leash;
  const ProcessIdentity identity = Spawn(program, leash);
  const auto now = ProcessIdentity::Of(identity.pid);
  ASSERT_TRUE(now);
  EXPECT_EQ(now->start_ticks, identity.start_ticks);
  EXPECT_NE(now->start_ticks, 0u);
  EXPECT_EQ(now->program, identity.program);
  EXPECT_EQ(getsid(identity.pid), identity.pid);
  ExpectNoChildren();
  pipe.in.Reset(-1);
  EXPECT_TRUE(HasEnded(identity));
}

TEST(SpawnTest, NothingOfTheProgramRunsBeforeItIsKnown) {
  const UniqueFd output = MakeMemoryFile();
  Program program = Shell("echo ran");
  program.output = output.get();
  const Leash leash;
  std::optional<ProcessIdentity> announced;
  const ProcessIdentity identity = Spawn(program, leash, [&](const ProcessIdentity& process) {
    announced = process;
    EXPECT_TRUE(process.IsAlive());
    EXPECT_EQ(StampOf(output.get()).size, 0U);
  });
  ASSERT_TRUE(announced);
  EXPECT_EQ(announced->pid, identity.pid);
  EXPECT_EQ(announced->start_ticks, identity.start_ticks);
  EXPECT_TRUE(HasEnded(identity));
  EXPECT_EQ(ReadAll(output.get(), 100), "ran\n");
}

TEST(SpawnTest, NothingOfTheProgramRunsIfItMayNot) {
  const UniqueFd output = MakeMemoryFile();
  Program program = Shell("echo ran");
  program.output = output.get();
  const Leash leash;
  ProcessIdentity announced;
  const auto refuse = [&](const ProcessIdentity& process) {
    announced = process;
    throw Error(ErrorKind::kCancelled, "not now");
  };
  EXPECT_MSB_ERROR(Spawn(program, leash, refuse), ErrorKind::kCancelled, "not now");
  EXPECT_TRUE(HasEnded(announced));
  EXPECT_EQ(StampOf(output.get()).size, 0U);
  ExpectNoChildren();
}

TEST(SpawnTest, AnUnexecutableProgramLeavesNothing) {
  const test::TempDir dir;
  test::WriteFile(dir / "file", "no program");
  const std::size_t open_before = ListDirectory(OpenDirectory("/proc/self/fd").get()).size();
  const Leash leash;
  Program program = Shell("true");
  program.directory = dir / "absent";
  EXPECT_MSB_ERROR(Spawn(program, leash), ErrorKind::kIO, "cannot change to directory ",
                   "/absent: ", "create it, or correct the path");
  EXPECT_MSB_ERROR(Spawn({.path = dir / "absent"}, leash), ErrorKind::kInvalidConfig,
                   "cannot execute ", "/absent: ", "give the path of a program");
  EXPECT_MSB_ERROR(Spawn({.path = dir / "file"}, leash), ErrorKind::kInvalidConfig,
                   "cannot execute ", "/file: ", "give the path of a program");
  EXPECT_MSB_ERROR(Spawn({.path = dir.path()}, leash), ErrorKind::kInvalidConfig, "cannot execute ",
                   dir.path().filename(), "give the path of a program");
  program = Shell("true");
  program.inherited = {1 << 20};  // Nothing is open under that number.
  EXPECT_MSB_ERROR(Spawn(program, leash), ErrorKind::kIO, "cannot set up a process for /bin/sh");
  program.inherited = {};
  program.output = 1 << 20;
  EXPECT_MSB_ERROR(Spawn(program, leash), ErrorKind::kIO,
                   "cannot duplicate the descriptor of an open file");
  ExpectNoChildren();
  // Plus the two of the leash.
  EXPECT_EQ(ListDirectory(OpenDirectory("/proc/self/fd").get()).size(), open_before + 2);
}

TEST(SpawnTest, WorksWhereChildrenAreNotWaitedFor) {
  const auto old_handler = std::signal(SIGCHLD, SIG_IGN);
  EXPECT_EQ(OutputOf(Shell("echo done")), "done\n");
  std::signal(SIGCHLD, old_handler);
}

TEST(SpawnTest, ThreadsMaySpawnAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([i] {
      for (int round = 0; round < 4; ++round) {
        const std::string text = fmt::format("{} {}\n", i, round);
        EXPECT_EQ(OutputOf(Shell(fmt::format("printf '{}'", text))), text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectNoChildren();
}

// A process that spawns a program, and ends when it is told to. The program answers one question
// and then sleeps.
class Owner {
 public:
  explicit Owner(bool lets_go) {
    pid_ = fork();
    if (pid_ == 0) Run(lets_go);
    told_.in.Reset(-1);
    EXPECT_EQ(read(told_.out.get(), &program_.pid, sizeof program_.pid),
              ssize_t{sizeof program_.pid});
    EXPECT_EQ(read(told_.out.get(), &program_.start_ticks, sizeof program_.start_ticks),
              ssize_t{sizeof program_.start_ticks});
    program_.boot_id = BootId();
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() {
    if (const auto process = ProcessHandle::Open(program_)) process->Kill();
  }

  const ProcessIdentity& program() const { return program_; }

  void Exit() {
    end_.in.Reset(-1);
    EXPECT_EQ(waitpid(pid_, nullptr, 0), pid_);
  }
  void Die() {
    EXPECT_EQ(kill(pid_, SIGKILL), 0);
    EXPECT_EQ(waitpid(pid_, nullptr, 0), pid_);
  }

  // Returns what the program answers, or an empty string if it has ended.
  std::string Ask() {
    question_.out.Reset(-1);
    answer_.in.Reset(-1);
    const auto old_handler = std::signal(SIGPIPE, SIG_IGN);
    EXPECT_GE(write(question_.in.get(), "well?\n", 6), -1);
    std::signal(SIGPIPE, old_handler);
    return ReadLine(answer_.out);
  }

 private:
  [[noreturn]] void Run(bool lets_go) {
    end_.in.Reset(-1);
    Program program = Shell(
        fmt::format("read line </proc/self/fd/{} && echo $line >/proc/self/fd/{} && exec sleep 100",
                    question_.out.get(), answer_.in.get()));
    program.inherited = {question_.out.get(), answer_.in.get()};
    Leash leash;
    const ProcessIdentity identity = Spawn(program, leash);
    if (lets_go) leash.LetGo();
    char byte = 0;
    const bool told =
        write(told_.in.get(), &identity.pid, sizeof identity.pid) > 0 &&
        write(told_.in.get(), &identity.start_ticks, sizeof identity.start_ticks) > 0 &&
        read(end_.out.get(), &byte, 1) == 0;
    _exit(told ? 0 : 1);
  }

  Pipe told_;
  Pipe end_;
  Pipe question_;
  Pipe answer_;
  pid_t pid_ = -1;
  ProcessIdentity program_;
};

TEST(LeashTest, AProgramEndsWithAKilledOwner) {
  Owner owner(/*lets_go=*/false);
  EXPECT_TRUE(owner.program().IsAlive());
  owner.Die();
  EXPECT_TRUE(HasEnded(owner.program()));
}

TEST(LeashTest, AProgramEndsWithAnOwnerThatExits) {
  Owner owner(/*lets_go=*/false);
  owner.Exit();
  EXPECT_TRUE(HasEnded(owner.program()));
  EXPECT_EQ(owner.Ask(), "");
}

TEST(LeashTest, AProgramThatWasLetGoOutlivesItsOwner) {
  Owner owner(/*lets_go=*/true);
  owner.Die();
  EXPECT_EQ(owner.Ask(), "well?\n");
  const auto process = ProcessHandle::Open(owner.program());
  ASSERT_TRUE(process);
  process->Kill();
  EXPECT_TRUE(process->AwaitEnd(test::Soon()));
}

TEST(LeashTest, EndsTheProgramWhenItGoesOutOfScope) {
  const Program program = {.path = "/bin/sleep", .arguments = {"100"}};
  ProcessIdentity identity;
  std::optional<Leash> last;
  {
    Leash leash;
    identity = Spawn(program, leash);
    last = std::move(leash);
  }
  EXPECT_TRUE(identity.IsAlive());
  last.reset();
  EXPECT_TRUE(HasEnded(identity));
}

TEST(LeashTest, IsOnePerProgram) {
  const Program program = {.path = "/bin/sleep", .arguments = {"100"}};
  std::optional<Leash> first(std::in_place);
  std::optional<Leash> second(std::in_place);
  const ProcessIdentity tied = Spawn(program, *first);
  const ProcessIdentity other = Spawn(program, *second);
  first.reset();
  EXPECT_TRUE(HasEnded(tied));
  EXPECT_TRUE(other.IsAlive());
  second.reset();
  EXPECT_TRUE(HasEnded(other));
}

TEST(SpawnTest, WorksInAProcessWithoutStandardDescriptors) {
  const pid_t pid = fork();
  if (pid == 0) {
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    _exit(OutputOf(Shell("cat; echo out; echo err >&2")) == "out\nerr\n" ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

TEST(FindProgramTest, LooksAlongThePath) {
  const test::TempDir dir;
  std::filesystem::create_directories(dir / "a/tool");
  std::filesystem::create_directories(dir / "b");
  std::filesystem::create_directories(dir / "c");
  test::WriteFile(dir / "b/tool", "");
  test::WriteFile(dir / "c/tool", "");
  std::filesystem::permissions(dir / "c/tool", std::filesystem::perms::owner_all);
  const std::string old = std::getenv("PATH");
  const std::string path = dir.path().native();
  ASSERT_EQ(setenv("PATH", fmt::format("::{0}/a:{0}/b:{0}/absent:{0}/c", path).c_str(), 1), 0);
  EXPECT_EQ(FindProgram("tool"), dir / "c/tool");
  EXPECT_EQ(FindProgram("other"), "");
  EXPECT_EQ(FindProgram(""), "");
  EXPECT_EQ(FindProgram("./tool"), "./tool");
  unsetenv("PATH");
  EXPECT_EQ(FindProgram("tool"), "");
  setenv("PATH", old.c_str(), 1);
}

}  // namespace
}  // namespace msb::base
