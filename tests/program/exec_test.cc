// SPDX-License-Identifier: Apache-2.0
//
// exec and sandbox console, with a script as the microsandbox runtime.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "src/base/sqlite.h"
#include "tests/program/program_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// Uses a home that the runtime 0.6.18 made, with one sandbox, "baseline", which counts as running.
// The runtime runs the commands on this machine.
class ExecCommandTest : public ProgramTest {
 protected:
  ExecCommandTest() {
    const fs::path home = UnpackFixtureHome("0.6.18", dir_.path());
    base::Database db(home / "db/msb.db", base::Database::Mode::kReadWrite);
    db.Execute("UPDATE run SET pid = NULL; UPDATE sandbox SET status = 'Running'");
    WriteFile(dir_ / "bin/msb",
              "#!/bin/sh\n[ \"$1\" = exec ] || exit 9\n"
              "while [ \"$1\" != -- ]; do echo \"$1\" >>\"$0.log\"; shift; done\n"
              "shift\nexec \"$@\"\n");
    fs::permissions(dir_ / "bin/msb", fs::perms::owner_all);
    options_.environment["MSB_HOME"] = home;
    options_.environment["MSB_PATH"] = dir_ / "bin/msb";
    options_.environment["PATH"] = "/usr/bin:/bin";
    options_.directory = dir_.path();
  }
};

TEST_F(ExecCommandTest, PassesTheOutputAndTheExitCodeOn) {
  const ProcessResult result =
      Run({"exec", "baseline", "--", "sh", "-c", "printf 'a\\000\\377'; echo err >&2; exit 7"});
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.out, std::string("a\0\xff", 3));
  EXPECT_EQ(result.err, "err\n");
  EXPECT_EQ(Run({"exec", "baseline", "--", "true"}).exit_code, 0);
  EXPECT_EQ(Run({"exec", "baseline", "--", "sh", "-c", "kill -9 $$"}).exit_code, 137);
}

TEST_F(ExecCommandTest, ArgumentsAreNotInterpreted) {
  EXPECT_EQ(Output({"exec", "baseline", "--", "printf", "<%s>", "--json", "--", "-q", "", "$HOME",
                    "a b", "[1,2]", "[]"}),
            "<--json><--><-q><><$HOME><a b><[1,2]><[]>");
}

TEST_F(ExecCommandTest, OptionsReachTheRuntime) {
  Output({"exec", "--env", "A=1", "--env", "B=x=y", "--cwd", "/work", "--user", "guest", "baseline",
          "--", "true"});
  EXPECT_THAT(ReadFile(dir_ / "bin/msb.log"),
              AllOf(HasSubstr("--env\nA=1\n--env\nB=x=y\n"), HasSubstr("--workdir\n/work\n"),
                    HasSubstr("--user\nguest\n"), HasSubstr("\nbaseline\n")));
}

TEST_F(ExecCommandTest, InputIsPassedOnRequest) {
  EXPECT_EQ(Run({"exec", "-i", "baseline", "--", "cat"}, std::string("a\0b", 3)).out,
            std::string("a\0b", 3));
  EXPECT_EQ(Run({"exec", "baseline", "--", "cat"}, "ignored").out, "");
  // An input that never ends does not hinder a command that does not get it.
  EXPECT_EQ(Bash("mkfifo input && exec 3<>input && $P exec baseline -- echo done <&3").out,
            "done\n");
}

TEST_F(ExecCommandTest, TheResultIsADocumentOnRequest) {
  const auto document = Document(
      "exec", {"exec", "baseline", "--", "sh", "-c", "printf 'a\\377'; echo err >&2; exit 3"}, 3);
  EXPECT_EQ(document, (nlohmann::json{{"exit_code", 3}, {"out", "a\ufffd"}, {"err", "err\n"}}));
}

TEST_F(ExecCommandTest, ATimeoutEndsTheCommand) {
  const ProcessResult result = Run({"exec", "--timeout", "1", "baseline", "--", "sleep", "1000"});
  EXPECT_EQ(result.exit_code, kCancelledCode);
  EXPECT_THAT(result.err,
              HasSubstr("'sleep' in sandbox 'baseline' did not end within the time allowed"));
}

TEST_F(ExecCommandTest, RefusesInvalidCommandLines) {
  EXPECT_EQ(Run({"exec", "baseline"}).exit_code, kUsageCode);
  EXPECT_EQ(Run({"exec"}).exit_code, kUsageCode);
  EXPECT_EQ(Run({"exec", "baseline", "ls", "-la"}).exit_code, kUsageCode);
  EXPECT_EQ(Run({"exec", "--timeout", "0", "baseline", "--", "true"}).exit_code, kUsageCode);
  const ProcessResult result = Run({"exec", "--env", "A", "baseline", "--", "true"});
  EXPECT_EQ(result.exit_code, kUsageCode);
  EXPECT_THAT(result.err, AllOf(HasSubstr("--env"), HasSubstr("'A' must have the form KEY=VALUE")));
}

TEST_F(ExecCommandTest, ReportsAnAbsentSandbox) {
  const ProcessResult result = Run({"exec", "absent", "--", "true"});
  EXPECT_EQ(result.exit_code, kSandboxNotFoundCode);
  EXPECT_THAT(result.err, AllOf(HasSubstr("'absent'"), HasSubstr("sandbox list")));
  Document("error", {"exec", "absent", "--", "true"}, kSandboxNotFoundCode);
}

TEST_F(ExecCommandTest, ConsolePrintsAPath) {
  EXPECT_THAT(Output({"sandbox", "console", "baseline"}),
              HasSubstr("/sandboxes/baseline/logs/kernel.log\n"));
  EXPECT_EQ(Document("sandbox-console", {"sandbox", "console", "baseline"})["name"], "baseline");
}

TEST_F(ProgramTest, TheLocalBackendHasNoGuest) {
  MakeSandbox("a");
  Output({"sandbox", "start", "a"});
  const ProcessResult result = Run({"exec", "a", "--", "true"});
  EXPECT_EQ(result.exit_code, kUnsupportedCode);
  EXPECT_THAT(result.err, AllOf(HasSubstr("sandbox 'a'"), HasSubstr("use the qemu")));
  EXPECT_EQ(Run({"sandbox", "console", "a"}).exit_code, kUnsupportedCode);
}

}  // namespace
}  // namespace msb::test
