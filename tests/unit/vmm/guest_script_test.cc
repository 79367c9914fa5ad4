// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/guest_script.h"

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "src/base/command.h"
#include "src/base/spawn.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;
using Words = std::vector<std::string>;

constexpr const char* kToken = "msb-token";

// A shell that guests have as /bin/sh. Tests run the script here as the agent runs it there.
struct GuestShell {
  const char* name;
  Words command;
};

void PrintTo(const GuestShell& shell, std::ostream* out) { *out << shell.name; }

class GuestScriptTest : public testing::TestWithParam<GuestShell> {
 protected:
  void SetUp() override {
    if (base::FindProgram(GetParam().command.front()).empty()) GTEST_SKIP() << "no such shell";
  }

  ExecResult Run(const Words& command, const ExecOptions& options,
                 const std::vector<std::pair<std::string, std::string>>& environment = {}) const {
    Words words = GetParam().command;
    base::Command program{.program = base::FindProgram(words.front()),
                          .arguments = Words(words.begin() + 1, words.end()),
                          .environment = environment,
                          .input = options.input};
    const Words script = ScriptArguments(kToken, command, options);
    program.arguments.insert(program.arguments.end(), script.begin(), script.end());
    const base::CommandResult result = base::RunCommand(test::Soon(), program);
    return {.exit_code = result.exit_status, .out = result.output, .err = result.error};
  }

  // Returns what the command prints.
  std::string Output(const Words& command, const ExecOptions& options) const {
    const ExecResult result = Run(command, options);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    ThrowIfScriptFailed(result, kToken, "box", command.front(), options);
    return result.out;
  }

  void ExpectFailure(const Words& command, const ExecOptions& options, const std::string& why) {
    const ExecResult result = Run(command, options);
    EXPECT_MSB_ERROR(ThrowIfScriptFailed(result, kToken, "box", command.front(), options),
                     ErrorKind::kInvalidConfig, "sandbox 'box'", why);
  }

  const test::TempDir dir_;
};

// Texts that a shell would interpret if they were parts of a script.
const Words kHostile = {"",   " ",        "a b", "$HOME", "`id`",    "$(id)", "';id;'",
                        "\"", "\\",       "*",   "~",     "a\nb",    "-n",    "--",
                        "#",  "\xc3\xa4", "a=b", "%s",    "${IFS}x", "!",     "&&"};

TEST_P(GuestScriptTest, PassesArgumentsUnchanged) {
  Words command = {"printf", "<%s>"};
  std::string expected;
  for (const std::string& text : kHostile) {
    command.push_back(text);
    expected += "<" + text + ">";
  }
  EXPECT_EQ(Output(command, {.cwd = "/"}), expected);
  EXPECT_EQ(Output(command, {.env = {{"A", "1"}}}), expected);
}

TEST_P(GuestScriptTest, SetsVariables) {
  for (const std::string& value : kHostile) {
    EXPECT_EQ(Output({"printenv", "MSB_VALUE"}, {.env = {{"MSB_VALUE", value}}}), value + "\n");
  }
  EXPECT_EQ(Output({"printenv", "A", "B"}, {.env = {{"A", "1"}, {"B", "2"}}}), "1\n2\n");
}

TEST_P(GuestScriptTest, TheNameOfAVariableMayBeAnything) {
  for (const char* name : {"a.b", "-i", "1", "$x", "msb count", "\xc3\xa4"}) {
    EXPECT_THAT("\n" + Output({"env"}, {.env = {{name, "found"}}}),
                HasSubstr(fmt::format("\n{}=found\n", name)));
  }
}

TEST_P(GuestScriptTest, KeepsTheEnvironmentOfTheAgent) {
  const ExecResult result =
      Run({"printenv", "MSB_AGENT"}, {.env = {{"A", "1"}}}, {{"MSB_AGENT", "kept"}});
  EXPECT_EQ(result.out, "kept\n");
}

TEST_P(GuestScriptTest, AVariableMayReplaceThePath) {
  test::WriteFile(dir_ / "only-here", "#!/bin/sh\necho ran\n");
  fs::permissions(dir_ / "only-here", fs::perms::owner_all);
  EXPECT_EQ(Output({"only-here"}, {.env = {{"PATH", dir_.path()}}}), "ran\n");
  ExpectFailure({"ls"}, {.env = {{"PATH", dir_.path()}}}, "no such program");
}

TEST_P(GuestScriptTest, ChangesTheDirectory) {
  EXPECT_EQ(Output({"pwd"}, {.cwd = "/usr/bin"}), "/usr/bin\n");
  for (const std::string& name : kHostile) {
    if (name.empty()) continue;
    fs::create_directories(dir_ / name);
    EXPECT_EQ(Output({"pwd"}, {.cwd = dir_ / name}), (dir_ / name).string() + "\n");
  }
}

TEST_P(GuestScriptTest, AProgramMayBeRelativeToTheDirectory) {
  test::WriteFile(dir_ / "run", "#!/bin/sh\necho ran \"$1\"\n");
  fs::permissions(dir_ / "run", fs::perms::owner_all);
  EXPECT_EQ(Output({"./run", "x"}, {.cwd = dir_.path()}), "ran x\n");
}

TEST_P(GuestScriptTest, AProgramMayHaveAnyName) {
  for (const char* name : {"a=b", "-x", "$x", "a b", "if", "msb_env"}) {
    test::WriteFile(dir_ / name, "#!/bin/sh\necho \"$A ran\"\n");
    fs::permissions(dir_ / name, fs::perms::owner_all);
    const std::string path = dir_.path().native() + ":/usr/bin:/bin";
    EXPECT_EQ(Output({name}, {.env = {{"PATH", path}, {"A", "it"}}}), "it ran\n") << name;
    EXPECT_EQ(Output({(dir_ / name).native()}, {.cwd = "/"}), " ran\n") << name;
  }
}

TEST_P(GuestScriptTest, ABuiltinOfTheShellIsNotAProgram) {
  ExpectFailure({"export"}, {.cwd = "/"}, "no such program");
}

TEST_P(GuestScriptTest, PassesTheInputAndTheExitCode) {
  const ExecResult result = Run({"sh", "-c", "cat; exit 125"}, {.cwd = "/", .input = "text"});
  EXPECT_EQ(result.out, "text");
  EXPECT_EQ(result.exit_code, 125);
  EXPECT_NO_THROW(ThrowIfScriptFailed(result, kToken, "box", "sh", {.cwd = "/"}));
}

TEST_P(GuestScriptTest, ReportsWhatIsAbsent) {
  ExpectFailure({"true"}, {.cwd = "/absent"}, "no directory '/absent'");
  ExpectFailure({"true"}, {.cwd = "/etc/passwd"}, "no directory '/etc/passwd'");
  ExpectFailure({"absent"}, {.cwd = "/"}, "cannot run 'absent'");
  ExpectFailure({"/usr"}, {.cwd = "/"}, "cannot run '/usr'");
  ExpectFailure({"/etc/passwd"}, {.env = {{"A", "1"}}}, "no such program");
  ExpectFailure({"true"}, {.user = "absent; id"}, "no user 'absent; id'");
  ExpectFailure({"true"}, {.user = "-u"}, "no user '-u'");
}

TEST_P(GuestScriptTest, ACommandThatFailsIsNotAFailureOfTheScript) {
  for (const char* text : {"user\\n", "msb-other user\\n", "msb-token\\n"}) {
    const ExecResult result =
        Run({"sh", "-c", fmt::format("printf '{}' >&2; exit 125", text)}, {.cwd = "/"});
    EXPECT_NO_THROW(ThrowIfScriptFailed(result, kToken, "box", "sh", {.cwd = "/"}));
  }
}

// Tests that need root, because they switch users.
class GuestUserTest : public GuestScriptTest {
 protected:
  void SetUp() override {
    GuestScriptTest::SetUp();
    if (geteuid() != 0) GTEST_SKIP() << "not root";
  }

  // Expects that commands run as user nobody. path has the programs that the script uses.
  void ExpectNobody(const std::string& path) {
    const ExecOptions options{
        .env = {{"A", "it's"}}, .cwd = "/usr", .user = "nobody", .input = "text"};
    const ExecResult result =
        Run({"/bin/sh", "-c", "id -un; id -gn; pwd; echo \"$A|$HOME|$USER|$LOGNAME|$1\"; cat", "sh",
             "$x y"},
            options, {{"PATH", path}});
    EXPECT_EQ(result.err, "");
    EXPECT_EQ(result.out, "nobody\nnogroup\n/usr\nit's|/nonexistent|nobody|nobody|$x y\ntext");
  }
};

TEST_P(GuestUserTest, SwitchesTheUser) { ExpectNobody("/usr/bin:/bin"); }

TEST_P(GuestUserTest, SwitchesTheUserWithoutSetpriv) {
  for (const char* program : {"id", "su", "env", "cat", "sh"}) {
    fs::create_symlink(base::FindProgram(program), dir_ / program);
  }
  ExpectNobody(dir_.path());
}

TEST_P(GuestUserTest, TheUserMayBeTheAgents) {
  EXPECT_EQ(Output({"sh", "-c", "id -u; echo $HOME"}, {.user = "root"}), "0\n/root\n");
}

TEST_P(GuestUserTest, TheProgramMustBeExecutableByTheUser) {
  fs::permissions(dir_.path(), fs::perms::owner_all);
  test::WriteFile(dir_ / "run", "#!/bin/sh\n");
  fs::permissions(dir_ / "run", fs::perms::all);
  ExpectFailure({dir_ / "run"}, {.user = "nobody"}, "that the user may execute");
  ExpectFailure({"true"}, {.cwd = dir_.path(), .user = "nobody"}, "that the user may enter");
  EXPECT_EQ(Output({dir_ / "run"}, {.user = "root"}), "");
}

TEST_P(GuestUserTest, AnAgentThatIsNotRootCannotSwitch) {
  ExecOptions options{.user = "daemon"};
  Words words = {"-c", "exec setpriv --reuid 65534 --clear-groups \"$@\"", "sh"};
  for (const std::string& word : GetParam().command) {
    words.push_back(word == GetParam().command.front() ? base::FindProgram(word).native() : word);
  }
  const Words script = ScriptArguments(kToken, {"true"}, options);
  words.insert(words.end(), script.begin(), script.end());
  const base::CommandResult result =
      base::RunCommand(test::Soon(), {.program = "/bin/sh", .arguments = words});
  EXPECT_MSB_ERROR(ThrowIfScriptFailed({result.exit_status, result.output, result.error}, kToken,
                                       "box", "true", options),
                   ErrorKind::kUnsupportedOperation, "sandbox 'box'", "does not run as root",
                   "user 'daemon'");
}

const std::vector<GuestShell> kShells = {
    {"dash", {"dash"}}, {"bash", {"bash", "--posix"}}, {"busybox", {"busybox", "sh"}}};

INSTANTIATE_TEST_SUITE_P(Shells, GuestScriptTest, testing::ValuesIn(kShells),
                         [](const auto& shell) { return std::string(shell.param.name); });
INSTANTIATE_TEST_SUITE_P(Shells, GuestUserTest, testing::ValuesIn(kShells),
                         [](const auto& shell) { return std::string(shell.param.name); });

}  // namespace
}  // namespace msb::vmm
