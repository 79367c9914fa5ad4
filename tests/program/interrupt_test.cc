// SPDX-License-Identifier: Apache-2.0
//
// Ctrl-C and SIGTERM.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <csignal>

#include "src/base/file.h"
#include "tests/program/program_home.h"
#include "tests/program/terminal.h"

namespace msb::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// More than a pipe holds, so that a writer waits for a reader.
constexpr std::uint64_t kLarge = 4 << 20;

class InterruptTest : public ProgramTest {
 protected:
  InterruptTest() {
    MakeSandbox("base", kLarge);
    Output({"create", "clean", "--from", "base"});
    mkfifo((dir_ / "pipe").c_str(), 0600);
  }

  // Opens the pipe and reads the first byte, so that the writer is in the middle of its work.
  base::UniqueFd ReadFirstByte() {
    base::UniqueFd reader(open((dir_ / "pipe").c_str(), O_RDONLY | O_CLOEXEC));
    char byte = 0;
    EXPECT_EQ(read(reader.get(), &byte, 1), 1);
    return reader;
  }
};

TEST_F(InterruptTest, CtrlCCancelsAnExportToAPipe) {
  const auto before = ListTree(dir_.path());
  Terminal terminal(80, Command({"export", "clean", dir_ / "pipe"}), options_);
  const base::UniqueFd reader = ReadFirstByte();
  terminal.Type(kCtrlC);
  EXPECT_EQ(terminal.Wait(), 130);
  EXPECT_THAT(terminal.output(), HasSubstr("cancelled"));
  EXPECT_EQ(ListTree(dir_.path()), before);
}

TEST_F(InterruptTest, CtrlCCancelsAnExportToAFile) {
  // Compressing this takes some seconds.
  MakeSandbox("big", 24 << 20);
  Output({"create", "big", "--from", "big"});
  const auto before = ListTree(dir_.path());
  Terminal terminal(80, Command({"export", "big", dir_ / "big.tar.zst", "--level", "19"}),
                    options_);
  ASSERT_TRUE(terminal.Shows("export ")) << terminal.output();
  terminal.Type(kCtrlC);
  EXPECT_EQ(terminal.Wait(), 130);
  EXPECT_THAT(terminal.output(), HasSubstr(" cancelled"));
  EXPECT_EQ(ListTree(dir_.path()), before);
  // The bar is gone, and the terminal shows the message alone.
  EXPECT_THAT(ScreenAfter(terminal.output()), testing::Contains(HasSubstr("error: cancelled")));
  EXPECT_THAT(ScreenAfter(terminal.output()), Not(testing::Contains(HasSubstr("%"))));
}

TEST_F(InterruptTest, CtrlCCancelsAnImportThatWaitsForItsInput) {
  const auto before = ListTree(home_ / "snapshots");
  Terminal terminal(80, Command({"import", dir_ / "pipe"}), options_);
  const base::UniqueFd writer(open((dir_ / "pipe").c_str(), O_WRONLY | O_CLOEXEC));
  terminal.Type(kCtrlC);
  EXPECT_EQ(terminal.Wait(), 130);
  EXPECT_EQ(ListTree(home_ / "snapshots"), before);
}

TEST_F(InterruptTest, SigtermCancels) {
  const pid_t pid = StartProcess(Command({"export", "clean", dir_ / "pipe"}), options_, {-1, 1, 2});
  const base::UniqueFd reader = ReadFirstByte();
  kill(pid, SIGTERM);
  bool killed = true;
  EXPECT_EQ(WaitForProcess(pid, &killed), 143);
  EXPECT_FALSE(killed);
}

// timeout(1) sends its signal twice, and a terminal that is closed sends SIGHUP twice.
TEST_F(InterruptTest, AnEchoOfTheSignalDoesNotEndTheProgram) {
  const auto before = ListTree(dir_.path());
  const pid_t pid = StartProcess(Command({"export", "clean", dir_ / "pipe"}), options_, {-1, 1, 2});
  const base::UniqueFd reader = ReadFirstByte();
  kill(pid, SIGTERM);
  kill(pid, SIGHUP);
  bool killed = true;
  EXPECT_THAT(WaitForProcess(pid, &killed), testing::AnyOf(143, 129));
  EXPECT_FALSE(killed);
  EXPECT_EQ(ListTree(dir_.path()), before);
}

TEST_F(InterruptTest, AnIgnoredSignalStaysIgnored) {
  const ProcessResult result = Bash(
      "trap '' HUP; $P export clean pipe & exec 3< pipe; head -c 1 <&3 > /dev/null; kill -HUP $!; "
      "exec 3<&-; wait $!");
  // The reader is gone, so the export ends with an error and not by the signal.
  EXPECT_EQ(result.exit_code, kIoCode);
}

TEST_F(InterruptTest, CtrlCWithJsonPrintsADocument) {
  const ProcessResult result = Bash(
      "$P export clean pipe --json > out & exec 3< pipe; head -c 1 <&3 > /dev/null; kill -TERM $!; "
      "wait $!");
  EXPECT_EQ(result.exit_code, 143);
  EXPECT_EQ(nlohmann::json::parse(ReadFile(dir_ / "out"))["error"]["kind"], "Cancelled");
}

TEST_F(InterruptTest, CtrlCCancelsAPullThatWaitsForAPassword) {
  std::array<int, 2> fds;
  ASSERT_EQ(pipe2(fds.data(), O_CLOEXEC), 0);
  base::UniqueFd reader(fds[0]);
  const base::UniqueFd writer(fds[1]);
  const pid_t pid =
      StartProcess(Command({"pull", "localhost:1/x", "--username", "ada", "--password-stdin"}),
                   options_, {reader.get(), 1, 2});
  reader.Reset(-1);
  // The program has read this.
  ASSERT_EQ(write(writer.get(), "p", 1), 1);
  int unread = 1;
  while (unread != 0) ASSERT_EQ(ioctl(writer.get(), FIONREAD, &unread), 0);
  kill(pid, SIGINT);
  bool killed = true;
  EXPECT_EQ(WaitForProcess(pid, &killed), 130);
  EXPECT_FALSE(killed);
}

// A program that writes to a reader that does not read cannot end by itself.
TEST_F(InterruptTest, ASignalThatIsRepeatedEndsTheProgram) {
  std::array<int, 2> fds;
  ASSERT_EQ(pipe2(fds.data(), O_CLOEXEC), 0);
  const base::UniqueFd reader(fds[0]);
  base::UniqueFd writer(fds[1]);
  ASSERT_GT(fcntl(writer.get(), F_SETPIPE_SZ, 4096), 0);
  const pid_t pid = StartProcess(Command({"--generate", "bash"}), options_, {-1, writer.get(), 2});
  writer = base::UniqueFd();
  pollfd full{reader.get(), POLLIN, 0};
  ASSERT_EQ(poll(&full, 1, -1), 1);
  // Signals that arrive while one is pending count as one, so send them until the program ends.
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    kill(pid, SIGINT);
    poll(nullptr, 0, 1);
  }
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGINT);
}

}  // namespace
}  // namespace msb::test
