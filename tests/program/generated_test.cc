// SPDX-License-Identifier: Apache-2.0
//
// The man page and the completions, which are generated from the definitions of the commands.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "tests/program/program_home.h"
#include "tests/support/build.h"
#include "tools/msb-snapshot/exit_code.h"

namespace msb::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;
using testing::Not;

const std::vector<std::string> kCommands = {
    "create",         "squash",          "list",          "reindex",      "inspect",
    "verify",         "remove",          "export",        "import",       "push",
    "pull",           "flatten",         "fork",          "tree",         "doctor",
    "sandbox create", "sandbox list",    "sandbox start", "sandbox stop", "sandbox remove",
    "exec",           "sandbox console", "restore",       "df",           "prune"};

class GeneratedTest : public ProgramTest {
 protected:
  GeneratedTest() {
    options_.environment["DIR"] = ProgramPath().parent_path();
    options_.environment["PATH"] = ProgramPath().parent_path().native() + ":/usr/bin:/bin";
  }

  // Returns whether a program is installed.
  bool Has(const std::string& program) { return Bash("command -v " + program).exit_code == 0; }

  // Presses the tabulator key in bash at the end of the last word. Returns what is offered.
  std::vector<std::string> Complete(const Arguments& words) {
    std::string quoted;
    for (const std::string& word : words) quoted += " '" + word + "'";
    const ProcessResult result =
        Bash("source $DIR/msb-snapshot.bash; COMP_WORDS=(msb-snapshot" + quoted +
             "); COMP_CWORD=" + std::to_string(words.size()) +
             "; _msb_snapshot; ((${#COMPREPLY[@]} == 0)) || printf '%s\\n' \"${COMPREPLY[@]}\"");
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(result.err, "");
    std::istringstream lines(result.out);
    std::vector<std::string> offered;
    for (std::string line; std::getline(lines, line);) offered.push_back(line);
    return offered;
  }
};

TEST_F(GeneratedTest, TheManPageRendersWithoutWarnings) {
  if (!Has("groff")) GTEST_SKIP() << "groff is not installed";
  const ProcessResult result = Bash("groff -man -ww -z $DIR/msb-snapshot.man");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out + result.err, "");
}

TEST_F(GeneratedTest, TheManPageNamesEveryCommandAndExitCode) {
  if (!Has("groff")) GTEST_SKIP() << "groff is not installed";
  const std::string page = Bash("groff -man -Tascii -P-cbou -rLL=100n $DIR/msb-snapshot.man").out;
  for (const std::string& command : kCommands) EXPECT_THAT(page, HasSubstr("\n   " + command));
  for (const program::ExitCode& code : program::ExitCodes()) {
    EXPECT_THAT(page, HasSubstr("\n       " + std::to_string(code.code) + " ")) << code.code;
  }
  for (const auto* text :
       {"NO_COLOR", "MSB_HOME", "--integrity", "ssh host msb-snapshot import -"}) {
    EXPECT_THAT(page, HasSubstr(text));
  }
}

TEST_F(GeneratedTest, ThePageHasEveryExitCode) {
  const std::string page = ReadFile(DocsDir() / "program.md");
  const std::string table = page.substr(page.find("| Exit code |"));
  for (const program::ExitCode& code : program::ExitCodes()) {
    if (code.meaning.starts_with("Not used")) continue;
    EXPECT_THAT(table,
                testing::ContainsRegex("\n\\|[0-9, ]* " + std::to_string(code.code) + "[ ,]"))
        << code.code;
  }
}

TEST_F(GeneratedTest, BashCompletesCommands) {
  EXPECT_THAT(Complete({""}), IsSupersetOf({"create", "ls", "sandbox", "doctor", "--help"}));
  EXPECT_THAT(Complete({"ins"}), ElementsAre("inspect"));
  EXPECT_THAT(Complete({"sandbox", "st"}), ElementsAre("start", "stop"));
}

TEST_F(GeneratedTest, BashCompletesOptionsAndTheirValues) {
  EXPECT_THAT(Complete({"export", "--w"}), ElementsAre("--with-parents", "--with-image"));
  EXPECT_THAT(Complete({"list", "--backend", ""}), ElementsAre("local", "qemu", "microsandbox"));
  EXPECT_THAT(Complete({"flatten", "x", "--format", "q"}), ElementsAre("qcow2"));
  EXPECT_THAT(Complete({"sandbox", "create", "--re"}), ElementsAre("--replace"));
  EXPECT_THAT(Complete({"create", "--label", ""}), IsEmpty());
  EXPECT_THAT(Complete({"create", "--consistency", ""}),
              ElementsAre("auto", "crash-consistent", "filesystem-consistent"));
}

TEST_F(GeneratedTest, BashCompletesNames) {
  MakeSnapshot("first");
  MakeSnapshot("second one");
  EXPECT_THAT(Complete({"inspect", ""}), testing::UnorderedElementsAre("first", "second\\ one"));
  EXPECT_THAT(Complete({"rm", "first", "se"}), ElementsAre("second\\ one"));
  EXPECT_THAT(Complete({"rm", "first", "second\\ o"}), ElementsAre("second\\ one"));
  EXPECT_THAT(Complete({"create", "x", "--from", ""}), ElementsAre("base"));
  EXPECT_THAT(Complete({"sandbox", "rm", ""}), ElementsAre("base"));
  EXPECT_THAT(Complete({"create", ""}), IsEmpty());
}

TEST_F(GeneratedTest, BashCompletesNamesOfTheGivenHome) {
  WriteFile(dir_ / "image", Noise(1 << 20, 1));
  Output({"--home", "other", "sandbox", "create", "sb", "--image", "image"});
  Output({"--home", "other", "create", "there", "--from", "sb"});
  EXPECT_THAT(Complete({"inspect", ""}), IsEmpty());
  EXPECT_THAT(Complete({"inspect", "--home", "other", ""}), ElementsAre("there"));
  EXPECT_THAT(Complete({"--home", "other", "inspect", "t"}), ElementsAre("there"));
  EXPECT_THAT(Complete({"--home", "=", "other", "--json", "inspect", ""}), ElementsAre("there"));
  EXPECT_THAT(Complete({"--home", "other", "sandbox", "rm", ""}), ElementsAre("sb"));
  EXPECT_THAT(Complete({"--backend", "q"}), ElementsAre("qemu"));
  EXPECT_THAT(Complete({"--home", "other", "ins"}), ElementsAre("inspect"));
}

// bash adds a slash to a word that is also a directory, if it takes the words for files.
TEST_F(GeneratedTest, BashDoesNotTakeNamesForFiles) {
  EXPECT_EQ(Bash("source $DIR/msb-snapshot.bash; complete -p msb-snapshot").out,
            "complete -F _msb_snapshot msb-snapshot\n");
}

TEST_F(GeneratedTest, BashCompletesFiles) {
  WriteFile(dir_ / "an archive.tar", "");
  std::filesystem::create_directory(dir_ / "another");
  EXPECT_THAT(Complete({"import", "an"}),
              testing::UnorderedElementsAre("an archive.tar", "another"));
  EXPECT_THAT(Complete({"create", "--path", "an"}), ElementsAre("another"));
}

TEST_F(GeneratedTest, ZshAcceptsItsCompletion) {
  if (!Has("zsh")) GTEST_SKIP() << "zsh is not installed";
  const ProcessResult result = Bash("zsh -n $DIR/msb-snapshot.zsh");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(ReadFile(ProgramPath().parent_path() / "msb-snapshot.zsh"),
              AllOf(testing::StartsWith("#compdef msb-snapshot\n"), HasSubstr("--integrity")));
}

TEST_F(GeneratedTest, FishCompletes) {
  if (!Has("fish")) GTEST_SKIP() << "fish is not installed";
  EXPECT_EQ(Bash("fish --no-execute $DIR/msb-snapshot.fish").err, "");
  MakeSnapshot("first");
  const auto offered = [&](const std::string& line) {
    return Bash("fish --no-config -c \"source $DIR/msb-snapshot.fish; complete -C '" + line +
                "'\" | cut -f 1")
        .out;
  };
  EXPECT_EQ(offered("msb-snapshot ins"), "inspect\n");
  EXPECT_EQ(offered("msb-snapshot sandbox st"), "start\nstop\n");
  EXPECT_EQ(offered("msb-snapshot export --with-i"), "--with-image\n");
  EXPECT_EQ(offered("msb-snapshot inspect f"), "first\n");
  EXPECT_EQ(offered("msb-snapshot inspect --home other f"), "");
  EXPECT_EQ(offered("msb-snapshot create x --from b"), "base\n");
}

TEST_F(GeneratedTest, TheOptionOfTheCompletionsIsHidden) {
  EXPECT_THAT(Output({"--help"}), Not(HasSubstr("--generate")));
  EXPECT_EQ(Run({"--generate", "unknown"}).exit_code, kUsageCode);
}

}  // namespace
}  // namespace msb::test
