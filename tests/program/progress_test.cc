// SPDX-License-Identifier: Apache-2.0
//
// The progress bar on a terminal, and colors.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/program/program_home.h"
#include "tests/program/terminal.h"

namespace msb::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr std::uint64_t kBarDiskBytes = 8 << 20;

class ProgressTest : public ProgramTest {
 protected:
  ProgressTest() {
    MakeSandbox("base", kBarDiskBytes);
    Output({"create", "clean", "--from", "base", "--integrity"});
  }

  // Exports the snapshot on a terminal with this many columns. Returns what was printed.
  std::string ExportOn(std::size_t columns) {
    Terminal terminal(columns, Command({"export", "clean", "x"}), options_);
    EXPECT_EQ(terminal.Wait(), 0) << terminal.output();
    return terminal.output();
  }
};

TEST_F(ProgressTest, TheBarIsErasedAtTheEnd) {
  const std::string output = ExportOn(120);
  EXPECT_THAT(output, AllOf(HasSubstr("export 100%"), HasSubstr("#]"), HasSubstr("8.0 MiB of")));
  EXPECT_THAT(ScreenAfter(output),
              testing::ElementsAre(testing::StartsWith("exported clean to x (8.0 MiB)")));
}

TEST_F(ProgressTest, TheBarFitsTheTerminal) {
  // The last column stays free.
  EXPECT_LT(WidthOf(ExportOn(120)), 120U);
  const std::string narrow = ExportOn(40);
  EXPECT_LT(WidthOf(narrow), 40U);
  EXPECT_THAT(narrow, HasSubstr("export 100%"));
}

TEST_F(ProgressTest, EachPhaseIsShown) {
  Terminal terminal(80, Command({"verify", "clean"}), options_);
  EXPECT_EQ(terminal.Wait(), 0);
  EXPECT_THAT(terminal.output(), HasSubstr("verify 100%"));
  EXPECT_THAT(terminal.output(), HasSubstr("\x1b[32mverified\x1b[0m"));
}

TEST_F(ProgressTest, QuietAndJsonShowNoBar) {
  for (const auto* option : {"--quiet", "--json"}) {
    Terminal terminal(80, Command({"export", "clean", "x", option}), options_);
    EXPECT_EQ(terminal.Wait(), 0);
    EXPECT_THAT(terminal.output(), Not(HasSubstr("\x1b"))) << option;
  }
}

TEST_F(ProgressTest, ADumbTerminalGetsPlainText) {
  for (const auto* term : {"dumb", ""}) {
    options_.environment["TERM"] = term;
    const std::string output = ExportOn(80);
    EXPECT_THAT(output, Not(HasSubstr("\x1b")));
    EXPECT_THAT(output, HasSubstr("exported clean"));
  }
}

TEST_F(ProgressTest, NoColorKeepsTheBarAndDropsTheColors) {
  options_.environment["NO_COLOR"] = "1";
  Terminal terminal(80, Command({"verify", "clean", "absent"}), options_);
  EXPECT_EQ(terminal.Wait(), kSnapshotNotFoundCode);
  EXPECT_THAT(terminal.output(), HasSubstr("verify 100%"));
  EXPECT_THAT(terminal.output(), HasSubstr("error: "));
  EXPECT_THAT(terminal.output(), Not(testing::ContainsRegex("\x1b\\[[0-9]*m")));
}

TEST_F(ProgressTest, AnEmptyNoColorKeepsTheColors) {
  options_.environment["NO_COLOR"] = "";
  Terminal terminal(80, Command({"inspect", "absent"}), options_);
  EXPECT_EQ(terminal.Wait(), kSnapshotNotFoundCode);
  EXPECT_THAT(terminal.output(), HasSubstr("\x1b[31merror:\x1b[0m"));
}

TEST_F(ProgressTest, WithoutATerminalThereAreNoEscapeSequences) {
  for (const ProgramTest::Arguments& arguments :
       std::vector<Arguments>{{"verify", "clean", "absent"}, {"tree"}, {"doctor"}, {"list"}}) {
    const ProcessResult result = Run(arguments);
    EXPECT_THAT(result.out + result.err, Not(HasSubstr("\x1b"))) << arguments[0];
  }
}

TEST_F(ProgressTest, ATableFitsTheTerminal) {
  Terminal wide(400, Command({"list"}), options_);  // IMAGE is a path in the temporary directory.
  EXPECT_EQ(wide.Wait(), 0);
  EXPECT_THAT(wide.output(), AllOf(HasSubstr("IMAGE"), HasSubstr("CREATED")));
  Terminal narrow(30, Command({"list"}), options_);
  EXPECT_EQ(narrow.Wait(), 0);
  EXPECT_THAT(narrow.output(), AllOf(HasSubstr("NAME"), HasSubstr("clean")));
  EXPECT_LE(WidthOf(narrow.output()), 30U);
}

TEST_F(ProgressTest, AnArchiveIsNotWrittenToATerminal) {
  for (const auto* term : {"xterm", "dumb"}) {
    options_.environment["TERM"] = term;
    Terminal terminal(80, Command({"export", "clean", "-"}), options_);
    EXPECT_EQ(terminal.Wait(), kUsageCode) << term;
    EXPECT_THAT(terminal.output(), HasSubstr("cannot be written to a terminal: redirect"));
  }
}

TEST_F(ProgressTest, AnArchiveIsNotReadFromATerminal) {
  Terminal terminal(80, Command({"import", "-"}), options_);
  EXPECT_EQ(terminal.Wait(), kUsageCode);
  EXPECT_THAT(terminal.output(), HasSubstr("cannot be read from a terminal: redirect"));
}

}  // namespace
}  // namespace msb::test
