// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/microsandbox_runtime.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "tests/support/support.h"

namespace msb::vmm {
namespace {

namespace fs = std::filesystem;

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;

constexpr RuntimeVersion kEarly{0, 6, 6};
constexpr RuntimeVersion kMiddle{0, 6, 18};
constexpr RuntimeVersion kLate{0, 7, 2};

SandboxSpec FromSnapshot() {
  SandboxSpec spec{.name = "box"};
  spec.snapshot = SnapshotSource{.artifact = "/snapshots/base"};
  return spec;
}

TEST(RuntimeVersionTest, ReadsTheVersionsOfReleases) {
  EXPECT_EQ(ParseRuntimeVersion("msb 0.6.6\n"), kEarly);
  EXPECT_EQ(ParseRuntimeVersion("msb 0.6.18\n"), kMiddle);
  EXPECT_EQ(ParseRuntimeVersion("msb 0.7.2"), kLate);
  EXPECT_EQ(ParseRuntimeVersion("msb 1.20.300-rc.1+build\n"), (RuntimeVersion{1, 20, 300}));
  EXPECT_LT(kEarly, kMiddle);
  EXPECT_LT(kMiddle, kLate);
}

TEST(RuntimeVersionTest, RefusesMalformedVersions) {
  for (const char* text : {"", "msb", "msb 0.6", "msb 0.6.", "msb x.y.z", "msb 0.6.99999999999",
                           "0.6.6", "Python 3.11.2", "msb -1.0.0", "msb version 0.6.6"}) {
    EXPECT_EQ(ParseRuntimeVersion(text), std::nullopt) << text;
  }
}

TEST(CreateCommandsTest, AnImageIsBootedIdleByEveryRelease) {
  SandboxSpec spec{.name = "box", .image = "alpine:3.20"};
  for (const RuntimeVersion& version : {kEarly, kMiddle, kLate}) {
    EXPECT_THAT(CreateCommands(version, spec),
                ElementsAre(Words{"create", "--name", "box", "alpine:3.20"}));
  }
  spec.cpus = 2;
  spec.memory_mib = 300;
  spec.upper_size_mib = 64;
  spec.labels = {{"a", "b"}, {"c", ""}};
  EXPECT_THAT(CreateCommands(kEarly, spec),
              ElementsAre(Words{"create", "--name", "box", "--cpus", "2", "--memory", "300M",
                                "--oci-upper-size", "64M", "--label", "a=b", "--label",
                                "c=", "alpine:3.20"}));
  for (const RuntimeVersion& version : {RuntimeVersion{0, 6, 7}, kMiddle, kLate}) {
    EXPECT_THAT(
        CreateCommands(version, spec),
        ElementsAre(Words{"create", "--name", "box", "--cpus", "2", "--memory", "300M",
                          "--root-disk", "64M", "--label", "a=b", "--label", "c=", "alpine:3.20"}));
  }
}

TEST(CreateCommandsTest, ASnapshotIsBootedAsTheReleaseCallsIt) {
  const SandboxSpec spec = FromSnapshot();
  for (const RuntimeVersion& version : {RuntimeVersion{0, 5, 5}, kEarly}) {
    EXPECT_THAT(CreateCommands(version, spec), ElementsAre(Words{"run", "--detach", "--name", "box",
                                                                 "--snapshot", "/snapshots/base"}));
  }
  for (const RuntimeVersion& version : {RuntimeVersion{0, 6, 7}, kMiddle}) {
    EXPECT_THAT(CreateCommands(version, spec),
                ElementsAre(Words{"run", "--detach", "--name", "box", "--from-snapshot",
                                  "/snapshots/base"}));
  }
  for (const RuntimeVersion& version : {RuntimeVersion{0, 7, 0}, kLate, RuntimeVersion{1, 0, 0}}) {
    EXPECT_THAT(CreateCommands(version, spec),
                ElementsAre(Words{"restore", "--name", "box", "/snapshots/base"}));
  }
}

TEST(CreateCommandsTest, ASnapshotTakesResourcesAndLabels) {
  SandboxSpec spec = FromSnapshot();
  spec.cpus = 2;
  spec.memory_mib = 300;
  spec.labels = {{"a", "b=c"}};
  EXPECT_THAT(CreateCommands(kEarly, spec),
              ElementsAre(Words{"run", "--detach", "--name", "box", "--cpus", "2", "--memory",
                                "300M", "--label", "a=b=c", "--snapshot", "/snapshots/base"}));
  EXPECT_THAT(CreateCommands(kLate, spec),
              ElementsAre(Words{"restore", "--name", "box", "--cpus", "2", "--memory", "300M",
                                "/snapshots/base"},
                          Words{"modify", "--next-start", "--label", "a=b=c", "box"}));
}

TEST(CreateCommandsTest, NothingIsTakenForAnOption) {
  SandboxSpec spec{.name = "-box", .image = "--replace"};
  spec.labels = {{"-k", "v"}};
  EXPECT_THAT(CreateCommands(kLate, spec),
              ElementsAre(Words{"create", "--name=-box", "--label=-k=v", "--", "--replace"}));
}

TEST(CreateCommandsTest, RefusesSpecsThatNoReleaseCanBoot) {
  SandboxSpec qcow2 = FromSnapshot();
  qcow2.snapshot->upper.format = DiskFormat::kQcow2;
  SandboxSpec layered = FromSnapshot();
  layered.snapshot->backing = {{"base", {}}};
  SandboxSpec resized = FromSnapshot();
  resized.upper_size_mib = 64;
  SandboxSpec labelled{.name = "box", .image = "a"};
  labelled.labels = {{"a=b", "c"}};
  SandboxSpec nameless{.name = "box", .image = "a"};
  nameless.labels = {{"", "c"}};
  const std::vector<std::pair<SandboxSpec, std::string>> refusals = {
      {qcow2, "/snapshots/base is not one; create a raw snapshot from it with Snapshot::Squash"},
      {layered, "/snapshots/base is not one; create a raw snapshot from it with Snapshot::Squash"},
      {resized, "cannot change the size of a disk that it boots from snapshot /snapshots/base"},
      {labelled, "label 'a=b': the key must not be empty or contain '='"},
      {nameless, "label '': the key must not be empty or contain '='"}};
  for (const auto& [spec, message] : refusals) {
    EXPECT_MSB_ERROR(CreateCommands(kLate, spec), ErrorKind::kUnsupportedOperation, message);
  }
  EXPECT_MSB_ERROR(CreateCommands(kEarly, qcow2), ErrorKind::kUnsupportedOperation,
                   "/snapshots/base", "Snapshot::Squash");
}

TEST(ExecArgumentsTest, EveryOptionIsOneOfTheRuntime) {
  EXPECT_EQ(ExecArguments("box", {"ls", "-la"}, {}),
            (Words{"exec", "--quiet", "--no-tty", "--stream", "box", "--", "ls", "-la"}));
  EXPECT_EQ(ExecArguments("box", {"true"},
                          {.env = {{"A", "b=c"}, {"-x", ""}}, .cwd = "/work", .user = "-u"}),
            (Words{"exec", "--quiet", "--no-tty", "--stream", "--env=-x=", "--env", "A=b=c",
                   "--workdir", "/work", "--user=-u", "box", "--", "true"}));
}

TEST(ExecArgumentsTest, RefusesANameThatLooksLikeAnOption) {
  EXPECT_MSB_ERROR(ExecArguments("-box", {"true"}, {}), ErrorKind::kUnsupportedOperation,
                   "sandbox '-box'", "does not begin with '-'");
}

// Messages that the releases print, each with the kind of error that it stands for.
TEST(KindOfRuntimeErrorTest, KnowsTheErrorsOfTheReleases) {
  const std::vector<std::pair<std::string, ErrorKind>> errors = {
      {"error: sandbox not found: x", ErrorKind::kSandboxNotFound},
      {"error: sandbox already exists: sandbox 'x' already exists; remove it, start the stopped "
       "sandbox, or recreate with .replace()",
       ErrorKind::kSandboxAlreadyExists},
      {"warn: sandbox 'x' already exists; --snapshot ignored (use --replace to recreate)\n"
       "error: libkrunfw not found: searched: /lib/libkrunfw.so.5.5.0",
       ErrorKind::kSandboxAlreadyExists},
      {"error: sandbox still running: cannot remove sandbox 'x': still running",
       ErrorKind::kSandboxStillRunning},
      {"error: image error: image not cached: x:1", ErrorKind::kImageNotFound},
      {"error: image error: registry error: error sending request for url (https://x/v2/)",
       ErrorKind::kImageNotFound},
      {"error: invalid config: disk image does not exist: /x.qcow2", ErrorKind::kImageNotFound},
      {"error: invalid config: rootfs bind path does not exist: ./x", ErrorKind::kImageNotFound},
      {"error: invalid config: invalid image reference: invalid reference format",
       ErrorKind::kInvalidConfig},
      {"error: snapshot not found: /x", ErrorKind::kSnapshotNotFound},
      {"error: snapshot integrity check failed: upper size mismatch: manifest says 2, file is 1",
       ErrorKind::kSnapshotIntegrity},
      {"error: snapshot integrity check failed: snapshot base image sha256:1 no longer available "
       "in registry (it may have been garbage-collected upstream)",
       ErrorKind::kSnapshotImageMissing},
      {"error: libkrunfw not found: searched: /lib", ErrorKind::kInvalidConfig},
      {"error: microsandbox runtime installation is incomplete: /msb has no matching libkrunfw",
       ErrorKind::kInvalidConfig},
      {"error: database error: Execution Error", ErrorKind::kIO},
      {"error: unexpected argument '--from-snapshot' found", ErrorKind::kUnsupportedOperation},
      {"error: unrecognized subcommand 'restore'", ErrorKind::kUnsupportedOperation},
      {"error: failed to start \"x\"\n  → build_vm: error: sandbox not found", ErrorKind::kIO},
      {"thread 'main' panicked", ErrorKind::kIO},
      {"", ErrorKind::kIO}};
  for (const auto& [message, kind] : errors) {
    EXPECT_EQ(KindOfRuntimeError(message), kind) << message;
    EXPECT_EQ(KindOfRuntimeError("Pulling x\n" + message + "\n"), kind) << message;
  }
}

// Tests with a script as the program msb.
class MicrosandboxRuntimeTest : public testing::Test {
 protected:
  ~MicrosandboxRuntimeTest() override { unsetenv("MSB_PATH"); }

  // Installs a program that records how it is called, and then runs script.
  void Install(const fs::path& program, const std::string& version, const std::string& script) {
    std::ostringstream text;
    text << "#!/bin/sh\nif [ \"$1\" = --version ]; then echo asked >> '"
         << (dir_ / "asked").native() << "'; " << version << "; exit; fi\n"
         << "{ echo \"$MSB_HOME\"; printf '%s\\n' \"$@\"; } > '" << (dir_ / "call").native()
         << "'\n"
         << script << "\n";
    test::WriteFile(program, text.str());
    fs::permissions(program, fs::perms::owner_all);
  }
  void Install(const std::string& version, const std::string& script) {
    Install(program_, "echo '" + version + "'", script);
  }

  // Returns the home and the arguments of the last call, one per line.
  std::string Call() const { return test::ReadFile(dir_ / "call"); }

  template <typename Act>
  std::string MessageOf(Act act) {
    try {
      act();
    } catch (const Error& e) {
      return std::string(ErrorKindName(e.kind())) + ": " + e.what();
    }
    return "no error";
  }

  const Context ctx_ = Context::Background().WithTimeout(std::chrono::minutes(2));
  const test::TempDir dir_;
  const fs::path program_ = dir_ / "bin" / "msb";
  MicrosandboxRuntime runtime_{"/the/home", program_};
};

TEST_F(MicrosandboxRuntimeTest, EachOperationIsOneCommandInTheHome) {
  Install("msb 0.6.18", "");
  runtime_.Start(ctx_, "box", "mark");
  EXPECT_EQ(Call(), "/the/home\nstart\nbox\n");
  runtime_.Stop(ctx_, "box", milliseconds(1500));
  EXPECT_EQ(Call(), "/the/home\nstop\n-t\n2\nbox\n");
  runtime_.Kill(ctx_, "box");
  EXPECT_EQ(Call(), "/the/home\nstop\n--force\nbox\n");
  runtime_.Remove(ctx_, "-box");
  EXPECT_EQ(Call(), "/the/home\nremove\n--\n-box\n");
  runtime_.ForceRemove(ctx_, "box");
  EXPECT_EQ(Call(), "/the/home\nremove\n--force\nbox\n");
  runtime_.Create(ctx_, FromSnapshot(), "mark");
  EXPECT_EQ(Call(), "/the/home\nrun\n--detach\n--name\nbox\n--from-snapshot\n/snapshots/base\n");
}

TEST_F(MicrosandboxRuntimeTest, ExecPassesEverythingOn) {
  Install("msb 0.7.2", "cat; printf 'a\\000\\377'; echo err >&2; exit 7");
  const ExecResult result =
      runtime_.Exec(ctx_, "box", {"sh", "a b"}, {.input = std::string("in\0", 3)});
  EXPECT_EQ(Call(), "/the/home\nexec\n--quiet\n--no-tty\n--stream\nbox\n--\nsh\na b\n");
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.out, std::string("in\0a\0\xff", 6));
  EXPECT_EQ(result.err, "err\n");
  Install("msb 0.7.2", "kill -TERM $$");
  EXPECT_EQ(runtime_.Exec(ctx_, "box", {"sh"}, {}).exit_code, 143);
}

TEST_F(MicrosandboxRuntimeTest, ExecReturnsTenMebibytesButNotMoreThanSixteen) {
  Install("msb 0.7.2", "head -c 10485760 /dev/zero");
  EXPECT_EQ(runtime_.Exec(ctx_, "box", {"sh"}, {}).out.size(), std::size_t{10} << 20);
  Install("msb 0.7.2", "head -c 16777217 /dev/zero >&2");
  EXPECT_MSB_ERROR(runtime_.Exec(ctx_, "box", {"sh"}, {}), ErrorKind::kIO, "'sh' in sandbox 'box'",
                   "more than 16777216 bytes", "to a file");
}

TEST_F(MicrosandboxRuntimeTest, ExecDistinguishesItsFailuresFromThoseOfTheCommand) {
  const std::vector<std::tuple<std::string, int, ErrorKind>> failures = {
      {"error: failed to exec \"sh\"", 127, ErrorKind::kInvalidConfig},
      {"error: failed to exec \"sh\"", 126, ErrorKind::kInvalidConfig},
      {"error: failed to exec \"sh\"", 1, ErrorKind::kInvalidConfig},
      {"error: sandbox not found: box", 1, ErrorKind::kSandboxNotFound},
      {"error: exec session ended without exit event", 1, ErrorKind::kIO},
      {"error: connect to /a/agent.sock", 1, ErrorKind::kIO},
  };
  for (const auto& [message, status, kind] : failures) {
    Install("msb 0.7.2", "echo '" + message + "' >&2; exit " + std::to_string(status));
    EXPECT_MSB_ERROR(runtime_.Exec(ctx_, "box", {"sh"}, {}), kind,
                     "cannot run 'sh' in sandbox 'box': " + message + "; ");
    Install("msb 0.7.2", "echo x >&2; echo '" + message + "' >&2; exit " + std::to_string(status));
    EXPECT_EQ(runtime_.Exec(ctx_, "box", {"sh"}, {}).exit_code, status) << message;
    Install("msb 0.7.2", "echo '" + message + "' >&2; exit 3");
    EXPECT_EQ(runtime_.Exec(ctx_, "box", {"sh"}, {}).exit_code, 3) << message;
  }
  Install("msb 0.7.2", "echo 'error: cannot find main.c' >&2; exit 1");
  EXPECT_EQ(runtime_.Exec(ctx_, "box", {"sh"}, {}).err, "error: cannot find main.c\n");
}

TEST_F(MicrosandboxRuntimeTest, AsksForTheVersionOnceForEachBinary) {
  Install("msb 0.6.6", "");
  runtime_.Create(ctx_, FromSnapshot(), "mark");
  runtime_.CheckCanCreate(ctx_, FromSnapshot());
  runtime_.Create(ctx_, FromSnapshot(), "mark");
  EXPECT_THAT(Call(), HasSubstr("--snapshot\n"));
  EXPECT_EQ(test::ReadFile(dir_ / "asked"), "asked\n");
  Install("msb 0.7.2", "");  // An upgrade under the same name.
  runtime_.Create(ctx_, FromSnapshot(), "mark");
  EXPECT_THAT(Call(), HasSubstr("restore\n"));
  EXPECT_EQ(test::ReadFile(dir_ / "asked"), "asked\nasked\n");
}

TEST_F(MicrosandboxRuntimeTest, FollowsALinkThatIsTurnedToAnotherRelease) {
  for (const char* version : {"0.6.6", "0.7.2"}) {
    Install(dir_ / version, std::string("echo msb ") + version, "");
  }
  fs::create_directory(dir_ / "bin");
  fs::create_symlink(dir_ / "0.6.6", program_);
  runtime_.Create(ctx_, FromSnapshot(), "mark");
  EXPECT_THAT(Call(), HasSubstr("run\n"));
  fs::remove(program_);
  fs::create_symlink(dir_ / "0.7.2", program_);
  runtime_.Create(ctx_, FromSnapshot(), "mark");
  EXPECT_THAT(Call(), HasSubstr("restore\n"));
}

TEST_F(MicrosandboxRuntimeTest, LooksInTheEnvironmentAndThenOnThePath) {
  Install(dir_ / "by-variable", "echo msb 0.6.6",
          "echo \"$MSB_PATH\" > '" + (dir_ / "variable").native() + "'");
  Install("msb 0.7.2", "echo \"$MSB_PATH\" > '" + (dir_ / "variable").native() + "'");
  const std::string path = getenv("PATH");
  setenv("PATH", ((dir_ / "bin").native() + ":" + path).c_str(), 1);
  MicrosandboxRuntime unconfigured("/the/home", {});
  unconfigured.Create(ctx_, FromSnapshot(), "mark");
  EXPECT_THAT(Call(), HasSubstr("restore\n"));
  setenv("MSB_PATH", (dir_ / "by-variable").c_str(), 1);
  unconfigured.Create(ctx_, FromSnapshot(), "mark");
  EXPECT_THAT(Call(), HasSubstr("run\n"));
  runtime_.Create(ctx_, FromSnapshot(), "mark");
  EXPECT_THAT(Call(), HasSubstr("restore\n")) << "what is configured comes first";
  EXPECT_EQ(test::ReadFile(dir_ / "variable"), program_.native() + "\n")
      << "its VMs must be of the same release";
  setenv("PATH", path.c_str(), 1);
}

TEST_F(MicrosandboxRuntimeTest, NamesTheSettingOfAMissingRuntime) {
  EXPECT_THAT(MessageOf([&] { runtime_.Start(ctx_, "box", "mark"); }),
              AllOf(HasSubstr("InvalidConfig: "), HasSubstr(program_.native()),
                    HasSubstr("Config::msb_path")));
  const std::string path = getenv("PATH");
  setenv("PATH", dir_.path().c_str(), 1);
  MicrosandboxRuntime unconfigured("/the/home", {});
  EXPECT_THAT(MessageOf([&] { unconfigured.Start(ctx_, "box", "mark"); }),
              AllOf(HasSubstr("InvalidConfig: "), HasSubstr("MSB_PATH")));
  setenv("PATH", path.c_str(), 1);
  test::WriteFile(program_, "no program");
  EXPECT_THAT(MessageOf([&] { runtime_.Start(ctx_, "box", "mark"); }),
              AllOf(HasSubstr("InvalidConfig: "), HasSubstr(program_.native())));
}

TEST_F(MicrosandboxRuntimeTest, RefusesAProgramThatHasNoVersion) {
  Install("Python 3.11.2", "");
  EXPECT_THAT(MessageOf([&] { runtime_.Create(ctx_, FromSnapshot(), "mark"); }),
              AllOf(HasSubstr("InvalidConfig: "), HasSubstr("Python 3.11.2"),
                    HasSubstr(program_.native())));
  EXPECT_FALSE(fs::exists(dir_ / "call"));
  Install(program_, "echo broken >&2; exit 5", "");
  EXPECT_THAT(MessageOf([&] { runtime_.Create(ctx_, FromSnapshot(), "mark"); }),
              AllOf(HasSubstr("broken"), HasSubstr("status 5")));
}

TEST_F(MicrosandboxRuntimeTest, KeepsTheRuntimesWordsInTheError) {
  Install("msb 0.6.6", "echo 'error: failed to start \"box\"' >&2; echo '  → no KVM' >&2; exit 1");
  EXPECT_THAT(MessageOf([&] { runtime_.Start(ctx_, "box", "mark"); }),
              AllOf(HasSubstr("IO: cannot start sandbox 'box': "),
                    HasSubstr(program_.native() + " start ended with status 1: "),
                    HasSubstr("error: failed to start \"box\"   → no KVM; solve the problem "
                              "that the runtime reports, and try again")));
  Install("msb 0.6.6", "exit 9");
  EXPECT_THAT(MessageOf([&] { runtime_.Start(ctx_, "box", "mark"); }),
              HasSubstr("it printed nothing"));
  Install("msb 0.6.6", "printf 'a\\033[31m\\377b' >&2; kill -KILL $$");
  EXPECT_THAT(MessageOf([&] { runtime_.Start(ctx_, "box", "mark"); }),
              AllOf(HasSubstr("status 137"), HasSubstr("a\\x1b[31m\\xffb")));
}

TEST_F(MicrosandboxRuntimeTest, OfAVeryLongErrorTheEndIsKept) {
  Install(
      "msb 0.6.6",
      "head -c 900000 /dev/zero | tr '\\0' x >&2; echo >&2; echo 'error: the reason' >&2; exit 1");
  const std::string message = MessageOf([&] { runtime_.Start(ctx_, "box", "mark"); });
  EXPECT_LT(message.size(), 2500U);
  EXPECT_THAT(message, HasSubstr("xxxx error: the reason"));
  Install("msb 0.6.6", "head -c 9000000 /dev/zero >&2; exit 1");
  EXPECT_LT(MessageOf([&] { runtime_.Start(ctx_, "box", "mark"); }).size(), 5000U);
}

// Some variables mean another thing to the runtime, or would make its messages unreadable.
TEST_F(MicrosandboxRuntimeTest, ItsEnvironmentIsItsOwn) {
  setenv("MSB_BACKEND", "microsandbox", 1);
  setenv("CLICOLOR_FORCE", "1", 1);
  Install("msb 0.6.6",
          "echo \"$MSB_BACKEND $NO_COLOR $CLICOLOR_FORCE $MSB_STARTED_BY\" >&2; exit 1");
  EXPECT_THAT(MessageOf([&] { runtime_.Start(ctx_, "box", "me"); }), HasSubstr("local 1 0 me"));
  unsetenv("MSB_BACKEND");
  unsetenv("CLICOLOR_FORCE");
}

TEST_F(MicrosandboxRuntimeTest, DetectsARunThatTookUpAnExistingSandbox) {
  Install("msb 0.6.6", "echo \"warn: sandbox 'box' already exists; --snapshot ignored\" >&2");
  EXPECT_MSB_ERROR(runtime_.Create(ctx_, FromSnapshot(), "mark"), ErrorKind::kSandboxAlreadyExists,
                   "cannot create sandbox 'box': ", "already exists");
}

TEST_F(MicrosandboxRuntimeTest, ARuntimeThatHangsIsKilledWhenTheCallIsCancelled) {
  const fs::path fifo = dir_ / "hangs";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  Install("msb 0.6.6", "echo > '" + fifo.native() + "'; exec sleep 1000");
  const auto [ctx, cancel] = ctx_.WithCancel();
  std::thread canceller([&, cancel = cancel] {
    std::ifstream(fifo).get();
    cancel();
  });
  EXPECT_MSB_ERROR(runtime_.Start(ctx, "box", "mark"), ErrorKind::kCancelled, "cancelled");
  canceller.join();
}

}  // namespace
}  // namespace msb::vmm
