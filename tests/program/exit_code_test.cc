// SPDX-License-Identifier: Apache-2.0
//
// Exit codes, and the documents of errors.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/program/program_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class ErrorTest : public ProgramTest {
 protected:
  // Expects the program to fail with this exit code, to report the error on standard error and,
  // with --json, as a document.
  void ExpectError(int code, const std::string& kind, const Arguments& arguments) {
    const ProcessResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, code) << testing::PrintToString(arguments) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, testing::StartsWith("error: "));
    const auto document = Document("error", arguments, code);
    EXPECT_EQ(document["error"]["kind"], kind);
    EXPECT_THAT(result.err, HasSubstr(document["error"]["message"].get<std::string>()));
  }
};

TEST_F(ErrorTest, ThingsThatAreAbsent) {
  MakeSandbox("base");
  ExpectError(kSandboxNotFoundCode, "SandboxNotFound", {"create", "x", "--from", "absent"});
  ExpectError(13, "ImageNotFound", {"sandbox", "create", "a", "--image", dir_ / "absent.img"});
  ExpectError(kSnapshotNotFoundCode, "SnapshotNotFound", {"inspect", "absent"});
  ExpectError(kSnapshotNotFoundCode, "SnapshotNotFound", {"export", "absent", dir_ / "x"});
  ExpectError(kSnapshotNotFoundCode, "SnapshotNotFound", {"flatten", "absent", dir_ / "x"});
  ExpectError(kSnapshotNotFoundCode, "SnapshotNotFound", {"squash", "absent", "x"});
  ExpectError(kIoCode, "IO", {"import", dir_ / "absent.tar"});
}

TEST_F(ErrorTest, ThingsThatExist) {
  MakeSnapshot("clean");
  ExpectError(11, "SandboxAlreadyExists",
              {"sandbox", "create", "base", "--image", dir_ / "base.img"});
  ExpectError(15, "SnapshotAlreadyExists", {"create", "clean", "--from", "base"});
}

TEST_F(ErrorTest, SandboxesThatRun) {
  MakeSandbox("base");
  Output({"sandbox", "start", "base"});
  ExpectError(16, "SnapshotSandboxRunning", {"create", "x", "--from", "base"});
  EXPECT_EQ(
      Document("sandbox-remove", {"sandbox", "rm", "base"}, 12)["results"][0]["error"]["kind"],
      "SandboxStillRunning");
}

TEST_F(ErrorTest, SnapshotsThatAreDamagedOrIncomplete) {
  MakeSandbox("image");
  Output({"sandbox", "create", "base", "--image", dir_ / "image.img", "--disk-format", "qcow2"});
  Output({"create", "first", "--from", "base"});
  EXPECT_EQ(Document("remove", {"rm", "first"}, 26)["results"][0]["error"]["kind"],
            "SnapshotHasChildren");
  fs::remove_all(home_ / "cache");
  ExpectError(17, "SnapshotImageMissing", {"export", "first", dir_ / "x", "--with-image"});
  WriteFile(dir_ / "broken.tar", std::string(2048, 'x'));
  ExpectError(kIntegrityCode, "SnapshotIntegrity", {"import", dir_ / "broken.tar"});
}

TEST_F(ErrorTest, ArgumentsThatAreInvalid) {
  MakeSnapshot("clean");
  ExpectError(20, "InvalidConfig", {"create", "a:b", "--from", "base"});
  ExpectError(20, "InvalidConfig", {"list", "--backend", "unknown"});
  for (const std::string name : {"../x", "/x", "x/y", ".x", "~x", "x:y"}) {
    ExpectError(20, "InvalidConfig", {"create", name, "--dest-dir", "dest", "--from", "base"});
  }
  EXPECT_FALSE(std::filesystem::exists(dir_ / "dest"));
  ExpectError(21, "InvalidArgument", {"export", "clean", dir_ / "x", "--level", "99"});
  MakeSnapshot("other");
  ExpectError(21, "InvalidArgument", {"export", "clean", dir_ / "x", "--since", "other"});
}

TEST_F(ErrorTest, OperationsThatAreNotSupported) {
  const fs::path home = UnpackFixtureHome("0.7.2", dir_ / "fixture");
  const auto list = Document("list", {"list", "--backend", "local", "--home", home});
  ASSERT_EQ(list.size(), 2U);
  ExpectError(24, "UnsupportedOperation",
              {"export", list[0]["artifact_path"], dir_ / "x", "--since", list[1]["digest"],
               "--backend", "local", "--home", home});
}

TEST_F(ErrorTest, AnInvalidCommandLineNamesItsHelp) {
  const std::vector<std::pair<Arguments, std::string>> cases = {
      {{"frobnicate"}, "unknown command 'frobnicate'"},
      {{"list", "--frobnicate"}, "--frobnicate"},
      {{"create", "x"}, "--from"},
      {{"create", "--from", "base"}, "either a name or --path"},
      {{"create", "x", "--path", "y", "--from", "base"}, "either a name or --path"},
      {{"create", "x", "--from", "base", "--label", "novalue"}, "'novalue' must have the form"},
      {{"export", "clean"}, "FILE"},
      {{"rm"}, "SNAPSHOT"},
      {{"sandbox"}, "subcommand"},
      {{"flatten", "clean", "x", "--format", "vhd"}, "vhd"},
      {{"sandbox", "create", "x", "--image", "y", "--memory", "-1"}, "memory"},
  };
  for (const auto& [arguments, named] : cases) {
    const ProcessResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, kUsageCode) << testing::PrintToString(arguments);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err,
                AllOf(testing::StartsWith("error: "), HasSubstr(named), HasSubstr("For help: ")));
  }
  EXPECT_THAT(Run({"sandbox", "create"}).err,
              HasSubstr("For help: msb-snapshot sandbox create --help\n"));
}

TEST_F(ErrorTest, NumbersAreChecked) {
  const std::vector<Arguments> options = {
      {"sandbox", "create", "x", "--image", "y", "--memory"},
      {"sandbox", "create", "x", "--image", "y", "--cpus"},
      {"sandbox", "create", "x", "--image", "y", "--disk-size"},
      {"sandbox", "stop", "x", "--timeout"},
      {"exec", "x", "--timeout"},
      {"prune", "--keep-last"},
      {"export", "x", "y", "--level"},
      {"export", "x", "y", "--threads"},
      {"push", "x", "localhost/x", "--level"},
      {"push", "x", "localhost/x", "--connections"},
      {"pull", "localhost/x", "--retries"},
  };
  for (const Arguments& option : options) {
    for (const auto& [value, message] : std::vector<std::pair<std::string, std::string>>{
             {"many", "'many' must be a number of at least "},
             {"-1", "'-1' must be a number of at least "},
             {"12MiB", "'12MiB' must be a number of at least "},
             {"99999999999999999999", "'99999999999999999999' is too large; the maximum is "}}) {
      Arguments arguments = option;
      arguments.push_back(value);
      const ProcessResult result = Run(arguments);
      EXPECT_EQ(result.exit_code, kUsageCode) << testing::PrintToString(arguments);
      EXPECT_THAT(result.err, HasSubstr("error: " + option.back() + ": " + message));
    }
  }
}

// "$HOME_OF_JOB" is empty if the variable is not set, and must not stand for the default then.
TEST_F(ErrorTest, AnEmptyDirectoryIsRefused) {
  MakeSnapshot("clean");
  for (const Arguments& arguments :
       {Arguments{"rm", "clean", "--home", ""}, Arguments{"reindex", ""},
        Arguments{"import", "x", "--dest", ""}, Arguments{"pull", "localhost/x", "--dest", ""},
        Arguments{"create", "x", "--from", "base", "--dest-dir", ""}}) {
    const ProcessResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, kUsageCode) << testing::PrintToString(arguments);
    EXPECT_THAT(result.err, HasSubstr("must not be empty"));
  }
  EXPECT_TRUE(HasSnapshot("clean"));
}

TEST_F(ErrorTest, UnknownWordsAreNamedWithWhatMayBeMeant) {
  MakeSnapshot("clean");
  const std::vector<std::pair<Arguments, std::string>> cases = {
      {{"creat"}, "unknown command 'creat'; did you mean 'create'?"},
      {{"lsit"}, "unknown command 'lsit'; did you mean 'list'?"},
      {{"sandbox", "strat"}, "unknown command 'strat'; did you mean 'start'?"},
      {{"sandbox", "entirely-else"}, "unknown command 'entirely-else'\n"},
      {{"--", "inspect", "clean"}, "unexpected '--'; put it after a command"},
      {{"[x]"}, "unknown command '[x]'"},
      {{"inspect", "-x"}, "unknown option '-x'"},
      {{"inspect", "clean", "-r"}, "unknown option '-r'"},
      {{"inspect", "clean", "more"}, "unexpected argument 'more'"},
      {{"exec", "base", "uname", "-r"}, "'-r'; put -- before the command"},
  };
  for (const auto& [arguments, message] : cases) {
    const ProcessResult result = Run(arguments);
    EXPECT_EQ(result.exit_code, kUsageCode) << testing::PrintToString(arguments);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, HasSubstr(message));
  }
  EXPECT_THAT(Run({"sandbox", "strat"}).err, HasSubstr("For help: msb-snapshot sandbox --help\n"));
}

TEST_F(ErrorTest, HelpAndVersionGoToStandardOutput) {
  EXPECT_THAT(Output({"--version"}), HasSubstr("msb-snapshot " + std::string(Version())));
  EXPECT_THAT(Output({"--help"}), AllOf(HasSubstr("create"), HasSubstr("doctor")));
  EXPECT_EQ(Output({}), Output({"--help"}));
  EXPECT_THAT(Output({"create", "--help"}), HasSubstr("--integrity"));
  EXPECT_THAT(Output({"pull", "--help"}), HasSubstr("[:TAG][@DIGEST]"));
}

TEST_F(ErrorTest, NextStepsAreOptionsOfTheProgram) {
  MakeSnapshot("clean");
  EXPECT_THAT(Run({"create", "clean", "--from", "base"}).err, HasSubstr("replace it with --force"));
  EXPECT_THAT(Run({"sandbox", "create", "base", "--image", "base.img"}).err,
              HasSubstr("replace it with --replace"));
  EXPECT_THAT(Run({"--backend", "qemu", "sandbox", "create", "vm", "--image", "base.img"}).err,
              HasSubstr("set --kernel"));
  const auto document =
      Document("error", {"create", "clean", "--from", "base"}, kSnapshotAlreadyExistsCode);
  EXPECT_THAT(document["error"]["message"].get<std::string>(), HasSubstr("--force"));
}

TEST_F(ErrorTest, ErrorsSayWhatToDoNext) {
  EXPECT_THAT(Run({"inspect", "absent"}).err,
              HasSubstr("hint: to see the snapshots of this home: msb-snapshot list\n"));
  EXPECT_THAT(Run({"create", "x", "--from", "absent"}).err,
              HasSubstr("hint: to see the sandboxes of this home: msb-snapshot sandbox list\n"));
}

}  // namespace
}  // namespace msb::test
