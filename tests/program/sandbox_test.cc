// SPDX-License-Identifier: Apache-2.0
//
// fork, tree, doctor, and the commands for sandboxes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "src/base/spawn.h"
#include "tests/program/program_home.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class SandboxCommandTest : public ProgramTest {};

TEST_F(SandboxCommandTest, ListInAnEmptyHomeSaysHowToBegin) {
  EXPECT_THAT(Output({"sandbox", "list"}), HasSubstr("sandbox create NAME --image FILE"));
  EXPECT_EQ(Output({"sandbox", "ls", "-q"}), "");
  EXPECT_EQ(Document("sandbox-list", {"sandbox", "list"}), nlohmann::json::array());
}

TEST_F(SandboxCommandTest, CreateMakesAStoppedSandboxFromAnImage) {
  MakeSandbox("image");
  EXPECT_THAT(Output({"sandbox", "create", "a", "--image", dir_ / "image.img"}),
              AllOf(HasSubstr("created sandbox a (stopped); disk: "), HasSubstr("/sandboxes/a/")));
  const auto document =
      Document("sandbox-create", {"sandbox", "create", "--label", "k=v", "b", "--image",
                                  dir_ / "image.img", "--disk-format", "qcow2", "--no-start"});
  EXPECT_EQ(document["name"], "b");
  EXPECT_EQ(document["status"], "stopped");
  EXPECT_EQ(document["upper"]["format"], "qcow2");
}

TEST_F(SandboxCommandTest, CreateMakesASandboxFromASnapshot) {
  MakeSnapshot("clean");
  const auto document =
      Document("sandbox-create", {"sandbox", "create", "a", "--snapshot", "clean"});
  EXPECT_EQ(document["upper"]["base_digest"], Document("inspect", {"inspect", "clean"})["digest"]);
  Output({"sandbox", "create", "a", "--snapshot", "clean", "--replace"});
}

TEST_F(SandboxCommandTest, CreateNeedsOneSource) {
  MakeSnapshot("clean");
  EXPECT_EQ(Run({"sandbox", "create", "a"}).exit_code, kUsageCode);
  EXPECT_EQ(Run({"sandbox", "create", "a", "--snapshot", "clean", "--image", dir_ / "base.img"})
                .exit_code,
            kUsageCode);
}

TEST_F(SandboxCommandTest, ListShowsTheSandboxes) {
  MakeSandbox("a");
  MakeSandbox("b");
  EXPECT_THAT(Output({"sandbox", "list"}),
              AllOf(HasSubstr("NAME"), HasSubstr("STATUS"), HasSubstr("stopped")));
  EXPECT_EQ(Output({"sandbox", "ls", "--quiet"}), "b\na\n");
  EXPECT_EQ(Document("sandbox-list", {"sandbox", "list"})[1]["name"], "a");
}

// The backend would ignore them.
TEST_F(SandboxCommandTest, OptionsOfAnotherBackendAreRefused) {
  MakeSandbox("a");
  for (const std::string option : {"--memory", "--cpus", "--kernel", "--qemu-arg"}) {
    const ProcessResult result = Run({"sandbox", "start", "a", option, "64"});
    EXPECT_EQ(result.exit_code, kUnsupportedCode) << option;
    EXPECT_THAT(result.err, AllOf(HasSubstr("the local backend does not support options of the VM"),
                                  HasSubstr("--backend")));
  }
  const ProcessResult result = Run({"sandbox", "create", "b", "--image", dir_ / "a.img",
                                    "--backend", "microsandbox", "--disk-format", "raw"});
  EXPECT_EQ(result.exit_code, kUnsupportedCode);
  EXPECT_THAT(result.err, HasSubstr("the microsandbox backend does not support --disk-format"));
}

TEST_F(SandboxCommandTest, ReplaceStopsASandboxThatRunsUnderQemu) {
  const std::string qemu = "qemu-system-x86_64";
  if (base::FindProgram(qemu).empty()) GTEST_SKIP() << qemu << " is not installed";
  MakeSandbox("image");
  // With -S the guest does not start.
  const Arguments create = {"sandbox",          "create",    "a",    "--image",
                            dir_ / "image.img", "--backend", "qemu", "--qemu-arg=-S"};
  EXPECT_THAT(Output(create), HasSubstr("created sandbox a (running)"));
  Arguments replace = create;
  replace.insert(replace.end(), {"--replace", "--no-start"});
  EXPECT_THAT(Output(replace), HasSubstr("created sandbox a (stopped)"));
}

TEST_F(SandboxCommandTest, StartAndStopChangeTheStatus) {
  MakeSandbox("a");
  EXPECT_EQ(Output({"sandbox", "start", "a"}), "started sandbox a\n");
  EXPECT_EQ(Document("sandbox-list", {"sandbox", "ls"})[0]["status"], "running");
  EXPECT_EQ(Run({"create", "clean", "--from", "a"}).exit_code, 16);
  EXPECT_EQ(Output({"sandbox", "stop", "a"}), "stopped sandbox a\n");
  const auto started = Document("sandbox-start", {"sandbox", "start", "a"});
  EXPECT_EQ(started["results"][0]["status"], "running");
  const auto stopped = Document("sandbox-stop", {"sandbox", "stop", "a", "--force"});
  EXPECT_EQ(stopped["results"][0]["status"], "stopped");
}

TEST_F(SandboxCommandTest, RemoveReportsEachSandbox) {
  MakeSandbox("a");
  MakeSandbox("b");
  const ProcessResult result = Run({"sandbox", "rm", "a", "absent", "b"});
  EXPECT_EQ(result.exit_code, kSandboxNotFoundCode);
  EXPECT_EQ(result.out, "removed sandbox a\nremoved sandbox b\n");
  EXPECT_THAT(result.err, AllOf(HasSubstr("'absent'"), HasSubstr("hint: to see the sandboxes")));
  Document("sandbox-remove", {"sandbox", "remove", "a"}, kSandboxNotFoundCode);
  EXPECT_EQ(Output({"sandbox", "ls", "-q"}), "");
}

TEST_F(SandboxCommandTest, RemoveEndsARunningSandboxIfForced) {
  MakeSandbox("a");
  Output({"sandbox", "start", "a"});
  EXPECT_EQ(Run({"sandbox", "rm", "a"}).exit_code, 12);
  Output({"sandbox", "rm", "a", "-f"});
  EXPECT_FALSE(fs::exists(home_ / "sandboxes/a"));
}

TEST_F(SandboxCommandTest, RemoveDeletesASandboxWithADamagedRecord) {
  for (const Arguments& command :
       {Arguments{"sandbox", "rm", "a"}, Arguments{"sandbox", "rm", "a", "--force"}}) {
    MakeSandbox("a");
    std::ofstream(home_ / "sandboxes/a/sandbox.json") << "{";
    EXPECT_EQ(Output(command), "removed sandbox a\n");
    EXPECT_FALSE(fs::exists(home_ / "sandboxes/a"));
  }
}

TEST_F(SandboxCommandTest, ForkMakesOneSandboxForEachName) {
  MakeSnapshot("clean");
  const std::string out = Output({"fork", "clean", "w1", "w2", "--label", "k=v", "w3"});
  for (const auto* name : {"w1", "w2", "w3"}) {
    EXPECT_THAT(out, HasSubstr(std::string("created sandbox ") + name + " (stopped)"));
  }
  const auto results = Document("fork", {"fork", "clean", "w1", "w4"}, 11)["results"];
  EXPECT_EQ(results[0]["error"]["kind"], "SandboxAlreadyExists");
  EXPECT_EQ(results[1]["name"], "w4");
}

TEST_F(SandboxCommandTest, TreeDrawsWhatDescendsFromWhat) {
  MakeSandbox("image");
  Output({"sandbox", "create", "base", "--image", dir_ / "image.img", "--disk-format", "qcow2"});
  Output({"create", "first", "--from", "base"});
  Output({"fork", "first", "w1", "w2", "--disk-format", "qcow2"});
  Output({"create", "second", "--from", "w1"});
  const std::string out = Output({"tree"});
  EXPECT_THAT(out, testing::StartsWith("first  sha256:"));
  EXPECT_THAT(out, HasSubstr("\n├── w2 (sandbox, stopped)\n"));
  EXPECT_THAT(out, HasSubstr("└── second  sha256:"));
  EXPECT_THAT(out, HasSubstr("    └── w1 (sandbox, stopped)\n"));
  const auto roots = Document("tree", {"tree"})["roots"];
  EXPECT_EQ(roots.size(), 1U);
  EXPECT_EQ(roots[0]["children"][0]["name"], "second");
  EXPECT_EQ(roots[0]["children"][0]["sandboxes"][0]["name"], "w1");
}

TEST_F(SandboxCommandTest, TreeAttachesSandboxesToTheSnapshotOfTheHome) {
  MakeSnapshot("clean");
  Output({"fork", "clean", "w1"});
  Output({"export", "clean", "clean.tar"});
  Output({"import", "clean.tar", "--dest", "elsewhere", "--name", "a-copy"});
  const auto roots = Document("tree", {"tree"})["roots"];
  ASSERT_EQ(roots.size(), 2U);
  for (const auto& root : roots) {
    const bool is_home = root["artifact_path"] == (home_ / "snapshots/clean").native();
    EXPECT_EQ(root["sandboxes"].size(), is_home ? 1U : 0U) << root;
  }
}

TEST_F(SandboxCommandTest, TreeUsesAsciiOutsideOfUtf8) {
  MakeSnapshot("clean");
  Output({"fork", "clean", "w1"});
  EXPECT_THAT(Bash("LC_ALL=C $P tree").out, HasSubstr("`-- w1 (sandbox, stopped)\n"));
}

TEST_F(SandboxCommandTest, TreeSaysThatAParentIsAbsent) {
  MakeSandbox("image");
  Output({"sandbox", "create", "base", "--image", dir_ / "image.img", "--disk-format", "qcow2"});
  Output({"create", "first", "--from", "base"});
  Output({"create", "second", "--from", "base"});
  Output({"rm", "first", "--force"});
  EXPECT_THAT(Output({"tree"}),
              AllOf(HasSubstr("second"), HasSubstr("(parent sha256:"), HasSubstr(" is absent)")));
}

class DoctorTest : public ProgramTest {};

TEST_F(DoctorTest, FindsThatTheHomeIsNotADirectory) {
  WriteFile(dir_ / "file", "");
  for (const auto* home : {"file", "file/below"}) {
    const ProcessResult result = Run({"doctor", "--home", home});
    EXPECT_EQ(result.exit_code, 1) << home;
    EXPECT_THAT(result.out, testing::ContainsRegex("problem +home .*/file is not a directory"));
    EXPECT_THAT(result.out, HasSubstr("choose a directory with --home"));
  }
}

TEST_F(DoctorTest, FindsThatAVolumeOfTheHomeIsNotMounted) {
  MakeSnapshot("clean");
  fs::rename(home_ / "snapshots", dir_ / "volume");
  fs::create_symlink(dir_ / "elsewhere", home_ / "snapshots");
  const ProcessResult result = Run({"doctor"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, testing::ContainsRegex("problem +home .*/snapshots is a symbolic link to "
                                                 ".*/elsewhere, which is absent"));
  EXPECT_THAT(result.out, HasSubstr("mount the volume"));
}

TEST_F(DoctorTest, FindsThatTheVolumeOfTheHomeIsNotMounted) {
  fs::create_symlink(dir_ / "elsewhere", dir_ / "data");
  const ProcessResult result = Run({"doctor", "--home", dir_ / "data/home"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, testing::ContainsRegex("problem +home .*/data is a symbolic link to "
                                                 ".*/elsewhere, which is absent"));
}

TEST_F(DoctorTest, ChecksEverything) {
  const std::string out = Output({"doctor"});
  for (const auto* name : {"home", "index", "space", "backend", "kvm", "qemu", "runtime"}) {
    EXPECT_THAT(out, testing::ContainsRegex(std::string("\n(ok|warning) +") + name));
  }
  EXPECT_THAT(out, HasSubstr("does not exist yet"));
  EXPECT_EQ(Document("doctor", {"doctor"})["ok"], true);
}

TEST_F(DoctorTest, AMissingQemuIsAProblemOfTheQemuBackend) {
  options_.environment["PATH"] = dir_.path();
  EXPECT_THAT(Output({"doctor"}), HasSubstr("only the qemu backend needs it"));
  const ProcessResult result = Run({"doctor", "--backend", "qemu"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, AllOf(HasSubstr("problem  qemu"), HasSubstr("apt-get install")));
  EXPECT_EQ(Document("doctor", {"doctor", "--backend", "qemu"}, 1)["ok"], false);
}

TEST_F(DoctorTest, ReportsADamagedIndex) {
  MakeSnapshot("clean");
  WriteFile(home_ / "db/snapshots.db", "damaged");
  EXPECT_THAT(Output({"doctor"}), AllOf(HasSubstr("warning  index"), HasSubstr("1 snapshot")));
}

TEST_F(DoctorTest, PrintsTheVersionOfTheRuntime) {
  WriteFile(dir_ / "it's msb", "#!/bin/sh\necho msb 0.7.2\necho more\n");
  fs::permissions(dir_ / "it's msb", fs::perms::owner_all);
  options_.environment["MSB_PATH"] = dir_ / "it's msb";
  EXPECT_THAT(Output({"doctor"}), AllOf(HasSubstr("(msb 0.7.2)"), Not(HasSubstr("more"))));
}

}  // namespace
}  // namespace msb::test
