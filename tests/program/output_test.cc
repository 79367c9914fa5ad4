// SPDX-License-Identifier: Apache-2.0
//
// What happens if the output cannot be written, or the disk is full.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>

#include "src/base/file.h"
#include "tests/program/program_home.h"
#include "tests/support/mounts.h"

namespace msb::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int kBrokenPipeCode = 141;

class OutputTest : public ProgramTest {
 protected:
  // Runs the program with a pipe as standard output whose reader is gone. Returns its exit code,
  // and expects it to print nothing to standard error.
  int RunIntoClosedPipe(const Arguments& arguments) {
    std::array<int, 2> fds;
    EXPECT_EQ(pipe2(fds.data(), O_CLOEXEC), 0);
    base::UniqueFd reader(fds[0]);
    const base::UniqueFd writer(fds[1]);
    reader = base::UniqueFd();
    const base::UniqueFd err(open((dir_ / "err").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    const pid_t pid = StartProcess(Command(arguments), options_, {-1, writer.get(), err.get()});
    const int code = WaitForProcess(pid);
    EXPECT_EQ(ReadFile(dir_ / "err"), "");
    return code;
  }
};

TEST_F(OutputTest, AClosedPipeIsNoError) {
  MakeSnapshot("clean");
  EXPECT_EQ(RunIntoClosedPipe({"list"}), kBrokenPipeCode);
  EXPECT_EQ(RunIntoClosedPipe({"list", "--json"}), kBrokenPipeCode);
  EXPECT_EQ(RunIntoClosedPipe({"export", "clean", "-"}), kBrokenPipeCode);
}

// A command completes even if the reader of its report has closed the pipe.
TEST_F(OutputTest, AClosedPipeDoesNotEndACommandInTheMiddle) {
  MakeSnapshot("a");
  MakeSnapshot("b");
  EXPECT_EQ(RunIntoClosedPipe({"rm", "a", "b"}), kBrokenPipeCode);
  EXPECT_FALSE(HasSnapshot("b"));
}

TEST_F(OutputTest, ListStopsQuietlyAfterTheFirstLine) {
  MakeSnapshot("clean");
  const ProcessResult result = Bash("$P list | head -n 1");
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out, testing::StartsWith("NAME"));
}

TEST_F(OutputTest, AFullStandardOutputIsAnError) {
  MakeSnapshot("clean");
  for (const auto* command : {"$P list > /dev/full", "$P export clean - > /dev/full",
                              "$P --version > /dev/full", "$P --help > /dev/full"}) {
    const ProcessResult result = Bash(command);
    EXPECT_EQ(result.exit_code, kIoCode) << command;
    EXPECT_THAT(result.err, AllOf(HasSubstr("error: "), HasSubstr("No space left on device")));
  }
}

// The signal that the kernel sends would end the program before it could clean up.
TEST_F(OutputTest, ALimitOfTheSizeOfFilesIsAnError) {
  MakeSandbox("base", 1 << 20);
  const auto before = ListTree(home_);
  const ProcessResult result = Bash("ulimit -f 100; $P create clean --from base");
  EXPECT_EQ(result.exit_code, kIoCode);
  EXPECT_THAT(result.err, HasSubstr("ulimit -f"));
  EXPECT_EQ(ListTree(home_), before);
}

// Otherwise the first file that is opened would become standard output.
TEST_F(OutputTest, ClosedStandardStreamsDamageNothing) {
  MakeSnapshot("clean", {"--integrity"});
  const ProcessResult result = Bash("$P list >&-");
  EXPECT_EQ(result.exit_code, kIoCode);
  EXPECT_THAT(result.err, HasSubstr("cannot write to standard output: Bad file descriptor"));
  EXPECT_EQ(Bash("$P export clean archive <&- >&- 2>&-").exit_code, kIoCode);
  EXPECT_EQ(Bash("$P import archive --name copy --home other <&- >&- 2>&-").exit_code, kIoCode);
  EXPECT_THAT(Output({"verify", "copy", "--home", "other"}), HasSubstr("verified"));
}

class FullDiskTest : public ProgramTest {
 protected:
  FullDiskTest() {
    MakeSandbox("big", 3 << 20);
    Output({"create", "big", "--from", "big"});
    Output({"export", "big", dir_ / "big.tar.zst"});
  }

  PrivateMounts mounts_;
  const std::filesystem::path small_ = dir_ / "small";
};

TEST_F(FullDiskTest, ImportSaysWhatIsNeededAndRemoveWorks) {
  if (!mounts_.Tmpfs(small_, 5 << 20)) GTEST_SKIP() << mounts_.failure();
  options_.environment["MSB_HOME"] = small_;
  Output({"import", dir_ / "big.tar.zst", "--name", "first"});
  const ProcessResult result = Run({"import", dir_ / "big.tar.zst", "--dest", small_ / "second"});
  EXPECT_EQ(result.exit_code, kIoCode);
  EXPECT_THAT(result.err, HasSubstr("free"));
  FillDisk(small_);
  EXPECT_EQ(Run({"rm", "first"}).exit_code, 0);
  EXPECT_EQ(Output({"list", "-q"}), "");
}

TEST_F(FullDiskTest, CreateFailsAndLeavesNothing) {
  if (!mounts_.Tmpfs(small_, 8 << 20)) GTEST_SKIP() << mounts_.failure();
  options_.environment["MSB_HOME"] = small_;
  Output({"sandbox", "create", "big", "--image", dir_ / "big.img"});
  const ProcessResult result = Run({"create", "clean", "--from", "big"});
  EXPECT_EQ(result.exit_code, kIoCode);
  EXPECT_THAT(result.err, HasSubstr("free"));
  EXPECT_TRUE(ListTree(small_ / "snapshots").empty());
  EXPECT_EQ(Document("doctor", {"doctor"})["checks"][2]["status"], "warning");
}

}  // namespace
}  // namespace msb::test
