// SPDX-License-Identifier: Apache-2.0
//
// The microsandbox backend with the released runtimes. They have no libkrunfw here, so nothing
// boots. The tests check that their errors are passed on, and what they leave behind.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tuple>

#include "src/base/sqlite.h"
#include "src/base/time.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using base::Database;
using base::Statement;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Uses the home that each of the releases made, with a stopped sandbox and two snapshots.
class MicrosandboxTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (PeerPath(GetParam()).empty()) GTEST_SKIP() << "no runtime " << GetParam();
  }

  Client MakeClient() {
    Config config{.home = home_};
    config.backend = "microsandbox";
    config.msb_path = PeerPath(GetParam());
    config.log = [this](std::string_view message) { log_.emplace_back(message); };
    return Client(config);
  }

  // Runs a program in the role of baseline's VM, and records it. It ends after 1000 s by itself.
  pid_t RunBaseline() {
    const fs::path vm = dir_ / "msb-vm";
    fs::copy_file("/bin/sleep", vm);
    const pid_t child = fork();
    if (child == 0) {
      setpgid(0, 0);
      execl(vm.c_str(), "msb", "1000", nullptr);
      _exit(127);
    }
    const Database db(home_ / "db" / "msb.db", Database::Mode::kReadWrite);
    Statement(db, "UPDATE sandbox SET status = 'Running'").Run();
    Statement run(db,
                  "INSERT INTO run (sandbox_id, pid, status, started_at) "
                  "VALUES (1, ?1, 'Running', ?2)");
    const std::string now = base::FormatIndexTime(base::UtcTime::Now());
    run.Bind(1, std::int64_t{child}).Bind(2, std::string_view(now)).Run();
    return child;
  }

  std::string Labelled() const { return GetParam() == "0.7.2" ? "baseline:labelled" : "labelled"; }

  // Runs act, which must fail with this kind. Returns the message.
  template <typename Act>
  std::string FailureOf(ErrorKind kind, Act act) {
    try {
      act();
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
      return e.what();
    }
    return {};
  }

  void ExpectOnlyBaseline() {
    ASSERT_EQ(ListSandboxes(ctx_, client_).size(), 1U);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(home_ / "sandboxes")) {
      names.push_back(entry.path().filename());
    }
    EXPECT_EQ(names, std::vector<std::string>{"baseline"});
  }

  const Context ctx_ = Context::Background().WithTimeout(std::chrono::minutes(2));
  // Releases from 0.6.18 on make sockets below their home, whose paths must be short.
  TempDir dir_{fs::temp_directory_path()};
  const fs::path home_ = UnpackFixtureHome(GetParam(), dir_.path());
  std::vector<std::string> log_;
  Client client_ = MakeClient();
};

std::string NameOf(const ::testing::TestParamInfo<std::string>& release) {
  std::string name = "Release_" + release.param;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Releases, MicrosandboxTest, ::testing::ValuesIn(FixtureReleases()),
                         NameOf);

TEST_P(MicrosandboxTest, ASnapshotThatCannotBeBootedLeavesNothing) {
  const std::string message = FailureOf(ErrorKind::kInvalidConfig, [&] {
    std::ignore = CreateSandbox(
        ctx_, "new",
        {WithSnapshot(Labelled()), WithCPUs(2), WithMemory(300), WithLabel("a", "b=c")}, client_);
  });
  EXPECT_THAT(message, AllOf(HasSubstr("cannot create sandbox 'new'"), HasSubstr("libkrunfw"),
                             HasSubstr(PeerPath(GetParam()).native())));
  ExpectOnlyBaseline();
  EXPECT_TRUE(log_.empty()) << log_[0];
}

TEST_P(MicrosandboxTest, AnImageThatCannotBeBootedLeavesNothing) {
  const std::string message = FailureOf(ErrorKind::kInvalidConfig, [&] {
    std::ignore = CreateSandbox(ctx_, "new",
                                {WithImage("fixture:1"), WithCPUs(2), WithMemory(300),
                                 WithOCIUpperSize(512), WithLabels({{"a", "b"}, {"-c", ""}})},
                                client_);
  });
  EXPECT_THAT(message, HasSubstr("libkrunfw"));
  ExpectOnlyBaseline();
  EXPECT_TRUE(log_.empty()) << log_[0];
}

TEST_P(MicrosandboxTest, AnImageThatIsNotThereIsNotFound) {
  const std::string gone = (dir_ / "gone.qcow2").native();
  EXPECT_THAT(
      FailureOf(ErrorKind::kImageNotFound,
                [&] { std::ignore = CreateSandbox(ctx_, "new", {WithImage(gone)}, client_); }),
      HasSubstr(gone));
  ExpectOnlyBaseline();
}

// Release 0.7.2 looks for its libkrunfw first, and detects that a VM is not one of its own.
class MicrosandboxBefore07Test : public MicrosandboxTest {};

INSTANTIATE_TEST_SUITE_P(Releases, MicrosandboxBefore07Test, ::testing::Values("0.6.6", "0.6.18"),
                         NameOf);

TEST_P(MicrosandboxBefore07Test, ASnapshotThatIsDamagedIsRefusedByTheRuntimeToo) {
  fs::resize_file(home_ / "snapshots" / "labelled" / "upper.ext4", 1 << 20);
  FailureOf(ErrorKind::kSnapshotIntegrity,
            [&] { std::ignore = CreateSandbox(ctx_, "new", {WithSnapshot("labelled")}, client_); });
  ExpectOnlyBaseline();
}

TEST_P(MicrosandboxBefore07Test, ANameThatTheRuntimeDoesNotTakeIsAnInvalidOne) {
  for (const char* name : {"-x", "a b"}) {
    EXPECT_THAT(
        FailureOf(
            ErrorKind::kInvalidConfig,
            [&] { std::ignore = CreateSandbox(ctx_, name, {WithSnapshot("labelled")}, client_); }),
        HasSubstr("must start with an alphanumeric"));
  }
  ExpectOnlyBaseline();
}

TEST_P(MicrosandboxTest, ATakenNameIsLeftAlone) {
  const auto before = ListTree(home_ / "sandboxes");
  FailureOf(ErrorKind::kSandboxAlreadyExists, [&] {
    std::ignore = CreateSandbox(ctx_, "baseline", {WithSnapshot(Labelled())}, client_);
  });
  EXPECT_EQ(ListTree(home_ / "sandboxes"), before);
}

TEST_P(MicrosandboxTest, AFailedStartReportsTheReasonAndLeavesTheSandboxStopped) {
  const auto before = ListTree(home_ / "sandboxes");
  EXPECT_THAT(FailureOf(ErrorKind::kInvalidConfig,
                        [&] { std::ignore = StartSandbox(ctx_, "baseline", client_); }),
              AllOf(HasSubstr("cannot start sandbox 'baseline'"), HasSubstr("libkrunfw")));
  EXPECT_EQ(GetSandbox(ctx_, "baseline", client_).Status(), SandboxStatus::kStopped);
  EXPECT_EQ(ListTree(home_ / "sandboxes"), before);
}

TEST_P(MicrosandboxTest, RemoveTakesTheRowAndTheDisk) {
  RemoveSandbox(ctx_, "baseline", client_);
  EXPECT_TRUE(ListSandboxes(ctx_, client_).empty());
  EXPECT_FALSE(fs::exists(home_ / "sandboxes" / "baseline"));
  FailureOf(ErrorKind::kSandboxNotFound, [&] { RemoveSandbox(ctx_, "baseline", client_); });
  EXPECT_TRUE(Snapshot::Open(ctx_, Labelled(), client_).SizeBytes() > 0);
}

TEST_P(MicrosandboxTest, ACrashedSandboxCanBeRemovedAtOnce) {
  const pid_t vm = RunBaseline();
  kill(vm, SIGKILL);
  ASSERT_EQ(waitpid(vm, nullptr, 0), vm);
  EXPECT_EQ(GetSandbox(ctx_, "baseline", client_).Status(), SandboxStatus::kCrashed);
  RemoveSandbox(ctx_, "baseline", client_);
  EXPECT_FALSE(fs::exists(home_ / "sandboxes" / "baseline"));
}

TEST_P(MicrosandboxBefore07Test, ARunningSandboxIsStoppedBeforeAnythingElse) {
  for (const bool at_once : {false, true}) {
    fs::remove(dir_ / "msb-vm");
    const pid_t vm = RunBaseline();
    FailureOf(ErrorKind::kSandboxStillRunning, [&] { RemoveSandbox(ctx_, "baseline", client_); });
    FailureOf(ErrorKind::kSandboxStillRunning,
              [&] { std::ignore = StartSandbox(ctx_, "baseline", client_); });
    const SandboxHandle sandbox = GetSandbox(ctx_, "baseline", client_);
    EXPECT_EQ(sandbox.Status(), SandboxStatus::kRunning);
    if (at_once) {
      sandbox.Kill(ctx_);
    } else {
      sandbox.Stop(ctx_, {WithStopTimeout(std::chrono::seconds(1))});
    }
    EXPECT_EQ(waitpid(vm, nullptr, WNOHANG), vm) << "it must have ended";
    const SandboxStatus status = GetSandbox(ctx_, "baseline", client_).Status();
    EXPECT_TRUE(status == SandboxStatus::kStopped || status == SandboxStatus::kCrashed);
  }
  RemoveSandbox(ctx_, "baseline", client_);
}

TEST_P(MicrosandboxTest, ReplacingRemovesTheOldOneEvenIfTheNewOneDoesNotBoot) {
  FailureOf(ErrorKind::kInvalidConfig, [&] {
    std::ignore =
        CreateSandbox(ctx_, "baseline", {WithSnapshot(Labelled()), WithReplace()}, client_);
  });
  EXPECT_TRUE(ListSandboxes(ctx_, client_).empty());
  EXPECT_TRUE(fs::is_empty(home_ / "sandboxes"));
}

// The runtime gets an empty file as libkrunfw, which it opens late: everything works but the guest.
class MicrosandboxRestoreTest : public MicrosandboxTest {
 protected:
  void SetUp() override {
    MicrosandboxTest::SetUp();
    WriteFile(dir_ / "libkrunfw.so", "");
    setenv("MSB_PATH", PeerPath(GetParam()).c_str(), 1);
    setenv("MSB_LIBKRUNFW_PATH", (dir_ / "libkrunfw.so").c_str(), 1);
  }
  void TearDown() override {
    unsetenv("MSB_PATH");
    unsetenv("MSB_LIBKRUNFW_PATH");
  }
};

INSTANTIATE_TEST_SUITE_P(Releases, MicrosandboxRestoreTest, ::testing::Values("0.7.2"), NameOf);

TEST_P(MicrosandboxRestoreTest, ABootThatFailsLateLeavesNothing) {
  for (const SandboxOption& source : {WithSnapshot(Labelled()), WithImage("fixture:1")}) {
    EXPECT_THAT(FailureOf(ErrorKind::kIO,
                          [&] { std::ignore = CreateSandbox(ctx_, "new", {source}, client_); }),
                HasSubstr("build_vm"));
    ExpectOnlyBaseline();
  }
  FailureOf(ErrorKind::kInvalidConfig,
            [&] { std::ignore = CreateSandbox(ctx_, "a b", {WithSnapshot(Labelled())}, client_); });
  ExpectOnlyBaseline();
  EXPECT_TRUE(log_.empty()) << log_[0];
}

}  // namespace
}  // namespace msb::test
