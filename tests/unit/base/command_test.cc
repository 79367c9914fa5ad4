// SPDX-License-Identifier: Apache-2.0

#include "src/base/command.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <sstream>
#include <thread>

#include "src/base/process.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;

using ::testing::HasSubstr;

Command ShellCommand(const std::string& script) {
  return {.program = "/bin/sh", .arguments = {"-c", script}};
}

CommandResult RunShell(const std::string& script) {
  return RunCommand(test::Soon(), ShellCommand(script));
}

std::ptrdiff_t OpenDescriptors() {
  return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
}

// Waits until that process, which is not a child of this one, has ended.
bool HasEnded(pid_t pid) {
  const auto identity = ProcessIdentity::Of(pid);
  const auto process = identity ? ProcessHandle::Open(*identity) : std::nullopt;
  return !process || process->AwaitEnd(test::Soon());
}

TEST(CommandTest, ReturnsTheOutputAndTheExitStatus) {
  const CommandResult result = RunShell("echo out; echo err >&2; exit 3");
  EXPECT_EQ(result.exit_status, 3);
  EXPECT_EQ(result.output, "out\n");
  EXPECT_EQ(result.error, "err\n");
  EXPECT_EQ(RunShell("true").exit_status, 0);
  EXPECT_EQ(RunShell("kill -TERM $$").exit_status, 128 + SIGTERM);
}

TEST(CommandTest, PassesTheArgumentsAsTheyAre) {
  const CommandResult result = RunCommand(
      test::Soon(),
      {.program = "/bin/sh",
       .arguments = {"-c", "printf '<%s>' \"$@\"", "sh", "a b", "", "$HOME", "'\"", "\xff\n"}});
  EXPECT_EQ(result.output, "<a b><><$HOME><'\"><\xff\n>");
}

TEST(CommandTest, SetsVariablesOnTopOfTheEnvironment) {
  ASSERT_EQ(setenv("MSB_COMMAND_TEST", "old", 1), 0);
  ASSERT_EQ(setenv("MSB_COMMAND_TEST_KEPT", "kept", 1), 0);
  Command command = ShellCommand("env | grep MSB_COMMAND_TEST | sort");
  command.environment = {{"MSB_COMMAND_TEST", "new=1"}, {"MSB_COMMAND_TEST_ADDED", ""}};
  EXPECT_EQ(RunCommand(test::Soon(), command).output,
            "MSB_COMMAND_TEST=new=1\nMSB_COMMAND_TEST_ADDED=\nMSB_COMMAND_TEST_KEPT=kept\n");
  unsetenv("MSB_COMMAND_TEST");
  unsetenv("MSB_COMMAND_TEST_KEPT");
}

TEST(CommandTest, GivesNoInputAndNoDescriptors) {
  EXPECT_EQ(RunShell("cat; echo end").output, "end\n");
  const int inheritable = open("/dev/null", O_RDONLY);  // A user's program may have one.
  EXPECT_EQ(RunShell("ls /proc/$$/fd").output, "0\n1\n2\n");
  close(inheritable);
}

TEST(CommandTest, GivesTheInputToTheProgram) {
  Command command = ShellCommand("cat");
  command.input = "line\nbytes: \xff";
  EXPECT_EQ(RunCommand(test::Soon(), command).output, command.input);
}

TEST(CommandTest, AProgramNeedNotReadItsInput) {
  Command command = ShellCommand("echo done");
  command.input = std::string(std::size_t{8} << 20, 'x');  // More than a pipe holds.
  EXPECT_EQ(RunCommand(test::Soon(), command).output, "done\n");
}

TEST(CommandTest, RunsWithSignalsAsTheyAreByDefault) {
  sigset_t blocked;
  sigset_t old;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, &old);
  const auto handler = signal(SIGPIPE, SIG_IGN);
  // Not in a pipe of the shell, which blocks signals while it starts programs.
  std::istringstream signals(RunShell("exec grep -E 'SigBlk|SigIgn' /proc/self/status").output);
  signal(SIGPIPE, handler);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  constexpr std::uint64_t kOfTheCLibrary = std::uint64_t{3} << 31;  // These cannot be reset.
  std::uint64_t blocked_in_program = 0;
  std::uint64_t ignored_in_program = 0;
  std::string label;
  ASSERT_TRUE(signals >> std::hex >> label >> blocked_in_program >> label >> ignored_in_program);
  EXPECT_EQ(blocked_in_program & ~kOfTheCLibrary, 0U);
  EXPECT_EQ(ignored_in_program & ~kOfTheCLibrary, 0U);
}

TEST(CommandTest, RefusesNulBytesAndIgnoredChildren) {
  EXPECT_MSB_ERROR(RunShell(std::string("exit 0\0", 7)), ErrorKind::kInvalidArgument, "/bin/sh",
                   "'exit 0\\x00'", "NUL byte");
  const auto handler = signal(SIGCHLD, SIG_IGN);
  EXPECT_MSB_ERROR(RunShell("exit 0"), ErrorKind::kUnsupportedOperation, "/bin/sh",
                   "ignores SIGCHLD", "set SIGCHLD to SIG_DFL");
  signal(SIGCHLD, handler);
  EXPECT_EQ(RunShell("exit 0").exit_status, 0);
}

TEST(CommandTest, KeepsTheBeginningOfLongOutput) {
  const CommandResult result = RunShell(
      "head -c 5000000 /dev/zero | tr '\\0' e >&2; head -c 3000000 /dev/zero | tr '\\0' o; "
      "exit 7");
  EXPECT_EQ(result.exit_status, 7);
  EXPECT_EQ(result.output, std::string(kMaxCommandOutput, 'o'));
  EXPECT_EQ(result.error, std::string(kMaxCommandOutput, 'e'));
  EXPECT_TRUE(result.is_truncated);
}

TEST(CommandTest, KeepsAsMuchOutputAsItShould) {
  Command command = ShellCommand("head -c 3000000 /dev/zero; head -c 2999999 /dev/zero >&2");
  command.max_output = 3'000'000;
  const CommandResult all = RunCommand(Context::Background(), command);
  EXPECT_EQ(all.output.size(), 3'000'000U);
  EXPECT_EQ(all.error.size(), 2'999'999U);
  EXPECT_FALSE(all.is_truncated);
  command.max_output = 2'999'999;
  const CommandResult part = RunCommand(Context::Background(), command);
  EXPECT_EQ(part.output.size(), 2'999'999U);
  EXPECT_TRUE(part.is_truncated);
}

TEST(CommandTest, DoesNotWaitForProcessesThatTheProgramLeaves) {
  const CommandResult result = RunShell("sleep 1000 & echo $!; echo started >&2");
  EXPECT_EQ(result.exit_status, 0);
  EXPECT_EQ(result.error, "started\n");
  const pid_t left = std::stoi(result.output);
  EXPECT_TRUE(ProcessIdentity::Of(left)) << "it must go on";
  kill(left, SIGKILL);
  EXPECT_TRUE(HasEnded(left));
}

TEST(CommandTest, AnAbandonedProgramThatKeepsWritingBlocksNothing) {
  const CommandResult result = RunShell("(while :; do echo more; done) & echo $! >&2");
  const pid_t left = std::stoi(result.error);
  kill(left, SIGKILL);
  EXPECT_TRUE(HasEnded(left));
}

TEST(CommandTest, NamesAProgramThatCannotBeExecuted) {
  const test::TempDir dir;
  test::WriteFile(dir / "text", "no program");
  for (const fs::path& program : {dir / "gone", dir / "text", dir.path()}) {
    try {
      RunCommand(test::Soon(), {.program = program});
      ADD_FAILURE() << program;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInvalidConfig);
      EXPECT_THAT(e.what(), HasSubstr(program.native()));
    }
  }
}

// A program that starts another one, reports the pids of both, and then hangs without output.
class HangingCommandTest : public testing::Test {
 protected:
  HangingCommandTest() { EXPECT_EQ(mkfifo(fifo_.c_str(), 0600), 0); }

  Command Hanging() const {
    return ShellCommand("trap '' TERM; sleep 1000 & echo $$ $! > '" + fifo_.native() + "'; wait");
  }

  // Calls react once the program hangs. After that, the call must fail for this reason, and both
  // programs must have ended.
  template <typename React>
  void ExpectCancelled(const Context& ctx, const char* reason, React react) {
    pid_t pid = 0;
    pid_t child = 0;
    std::thread reader([&] {
      std::ifstream(fifo_) >> pid >> child;
      react();
    });
    EXPECT_MSB_ERROR(RunCommand(ctx, Hanging()), ErrorKind::kCancelled, reason);
    reader.join();
    ASSERT_NE(pid, 0);
    EXPECT_FALSE(ProcessIdentity::Of(pid)) << "it must have been waited for";
    EXPECT_TRUE(HasEnded(child));
  }

  const test::TempDir dir_;
  const fs::path fifo_ = dir_ / "pids";
};

TEST_F(HangingCommandTest, ACancellationEndsAllOfIt) {
  const auto [ctx, cancel] = test::Soon().WithCancel();
  ExpectCancelled(ctx, "cancelled", cancel);
}

TEST_F(HangingCommandTest, ADeadlineEndsAllOfIt) {
  ExpectCancelled(test::Soon().WithTimeout(std::chrono::milliseconds(500)), "deadline exceeded",
                  [] {});
}

TEST(CommandTest, ACancelledContextStartsNothing) {
  const test::TempDir dir;
  const auto [ctx, cancel] = test::Soon().WithCancel();
  cancel();
  EXPECT_MSB_ERROR(RunCommand(ctx, ShellCommand("touch '" + (dir / "made").native() + "'")),
                   ErrorKind::kCancelled, "cancelled");
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(CommandTest, SeveralThreadsRunProgramsAtOnce) {
  const auto before = OpenDescriptors();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([i] {
      for (int j = 0; j < 8; ++j) {
        const CommandResult result =
            RunShell("echo " + std::to_string(i) + "; exit " + std::to_string(j));
        EXPECT_EQ(result.output, std::to_string(i) + "\n");
        EXPECT_EQ(result.exit_status, j);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(OpenDescriptors(), before);
}

}  // namespace
}  // namespace msb::base
