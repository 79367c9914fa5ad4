// SPDX-License-Identifier: Apache-2.0
//
// Sandboxes of one home that is used in several containers, each with its own PID namespace.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "src/base/file.h"
#include "src/base/process.h"
#include "tests/support/mapped_file.h"
#include "tests/support/pid_namespace.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class ContainerTest : public ::testing::Test {
 protected:
  ContainerTest() { WriteFile(image_, Noise(102'400, 1)); }

  SandboxStatus StatusOf(const std::string& name) {
    return GetSandbox(ctx_, name, client_).Status();
  }

  // Counts the files in a sandbox's directory that hold the locks of its owners.
  std::size_t CountLocks(const std::string& name) const {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(dir_ / "home/sandboxes" / name)) {
      count += entry.path().extension() == ".lock" ? 1 : 0;
    }
    return count;
  }

  // Replaces fields of the process in a sandbox's record.
  void PatchProcess(const std::string& name, const nlohmann::json& patch) const {
    const fs::path path = dir_ / "home/sandboxes" / name / "sandbox.json";
    nlohmann::json record = nlohmann::json::parse(ReadFile(path));
    record.at("process").merge_patch(patch);
    WriteFile(path, record.dump());
  }

  static void Require(bool condition, const std::string& what) {
    if (!condition) throw std::runtime_error(what);
  }

  // Returns the message of the error that call throws, which must be of this kind.
  static std::string Refusal(ErrorKind kind, const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& e) {
      Require(e.kind() == kind, std::string("another kind: ") + e.what());
      return e.what();
    }
    throw std::runtime_error("no error");
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path image_ = dir_ / "base.img";
  Client client_ = LocalClient(dir_ / "home");
};

TEST_F(ContainerTest, RunningSandboxOfAnotherPidNamespaceIsNotTakenForACrashedOne) {
  if (const auto why = WhyNoPidNamespaces()) GTEST_SKIP() << *why;
  const Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client_);
  const auto before = ListTree(dir_.path());
  EXPECT_EQ(
      ContainerProcess([&] {
        Client client = LocalClient(dir_ / "home");
        Require(GetSandbox(ctx_, "a", client).Status() == SandboxStatus::kRunning, "status");
        Require(ListSandboxes(ctx_, client).at(0).Status() == SandboxStatus::kRunning, "list");
        for (const std::string& message :
             {Refusal(ErrorKind::kSnapshotSandboxRunning,
                      [&] { Snapshot::Create(ctx_, "a", {.name = "s"}, client); }),
              Refusal(ErrorKind::kSandboxStillRunning, [&] { RemoveSandbox(ctx_, "a", client); }),
              Refusal(ErrorKind::kSandboxStillRunning,
                      [&] { std::ignore = StartSandbox(ctx_, "a", client); })}) {
          Require(message.find("another container") != std::string::npos &&
                      message.find("stop it first") != std::string::npos,
                  message);
        }
      }).Wait(),
      "");
  EXPECT_EQ(ListTree(dir_.path()), before);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
}

TEST_F(ContainerTest, OwnerInAnotherPidNamespaceIsSeenToRunAndToEnd) {
  if (const auto why = WhyNoPidNamespaces()) GTEST_SKIP() << *why;
  ContainerProcess owner([&] {
    Client client = LocalClient(dir_ / "home");
    const Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
    WriteFile(dir_ / "created", "");
    pause();
  });
  while (!fs::exists(dir_ / "created")) std::this_thread::yield();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "a", {.name = "s"}, client_),
                   ErrorKind::kSnapshotSandboxRunning,
                   "sandbox 'a' is running, as process 1 in another container", "stop it first");
  owner.Kill();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kCrashed);
  Snapshot::Create(ctx_, "a", {.name = "s"}, client_);
  StartSandbox(ctx_, "a", client_).Close();
  EXPECT_EQ(CountLocks("a"), 0U);
}

TEST_F(ContainerTest, StopInAnotherContainerEndsTheSandboxForAll) {
  if (const auto why = WhyNoPidNamespaces()) GTEST_SKIP() << *why;
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client_);
  EXPECT_EQ(CountLocks("a"), 1U);
  EXPECT_EQ(ContainerProcess([&] {
              Client client = LocalClient(dir_ / "home");
              GetSandbox(ctx_, "a", client).Stop(ctx_);
              StartSandbox(ctx_, "a", client).Detach(ctx_);
            }).Wait(),
            "");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_EQ(CountLocks("a"), 0U);  // A detached sandbox has no owner.
}

// On a volume without locks across hosts, only the host in the record shows where the sandbox runs.
TEST_F(ContainerTest, SandboxOfAnotherHostIsBelievedToRun) {
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client_);
  PatchProcess("a", {{"host", "elsewhere/1"}, {"boot_id", "another"}, {"lock", nullptr}});
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_THAT(Refusal(ErrorKind::kSnapshotSandboxRunning,
                      [&] { Snapshot::Create(ctx_, "a", {.name = "s"}, client_); }),
              AllOf(HasSubstr("on host 'elsewhere'"), HasSubstr("stop it first")));
  GetSandbox(ctx_, "a", client_).Stop(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
}

TEST_F(ContainerTest, SandboxOfAnEarlierBootOfThisHostHasCrashed) {
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client_);
  PatchProcess("a", {{"boot_id", "another"}, {"lock", nullptr}});
  // Hosts without a machine-id cannot be told apart.
  EXPECT_EQ(StatusOf("a"),
            base::HasMachineId(base::HostId()) ? SandboxStatus::kCrashed : SandboxStatus::kRunning);
}

// Earlier releases recorded only the pid, the start time and the boot.
TEST_F(ContainerTest, RecordOfAnEarlierReleaseIsJudgedByItsProcess) {
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client_);
  const nlohmann::json earlier = {
      {"host", nullptr}, {"pid_namespace", nullptr}, {"lock", nullptr}, {"lock_domain", nullptr}};
  PatchProcess("a", earlier);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  PatchProcess("a", {{"pid", 1 << 22}});
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kCrashed);
}

// A copy of a home has its own lock files, which nothing holds locked.
TEST_F(ContainerTest, CopyOfARunningSandboxDoesNotRun) {
  const Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client_);
  fs::copy(dir_ / "home", dir_ / "copy", fs::copy_options::recursive);
  Client copy = LocalClient(dir_ / "copy");
  EXPECT_EQ(GetSandbox(ctx_, "a", copy).Status(), SandboxStatus::kCrashed);
  Snapshot::Create(ctx_, "a", {.name = "s"}, copy);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  GetSandbox(ctx_, "a", copy).Stop(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  StartSandbox(ctx_, "a", copy).Kill(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  RemoveSandbox(ctx_, "a", copy);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
}

TEST_F(ContainerTest, DiskThatIsMappedByAWriterIsNotSnapshotted) {
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2}) {
    Config config{.home = dir_ / "home", .backend = "local"};
    config.upper_format = format;
    Client client(config);
    const std::string name(ToString(format));
    CreateSandbox(ctx_, name, {WithImage(image_)}, client).Close();
    {
      MappedFile mapped(GetSandbox(ctx_, name, client).Upper().path);
      mapped.Dirty();
      EXPECT_THAT(Refusal(ErrorKind::kSnapshotSandboxRunning,
                          [&] { Snapshot::Create(ctx_, name, {.name = name}, client); }),
                  AllOf(HasSubstr("open for writing"), HasSubstr("fuser"), Not(HasSubstr("''"))));
      EXPECT_FALSE(fs::exists(dir_ / "home/snapshots" / name));
    }
    Snapshot::Create(ctx_, name, {.name = name}, client);
  }
}

// A VM that was booted by hand would lose what it writes from then on.
TEST_F(ContainerTest, DiskThatIsMappedByAWriterIsNotTakenAway) {
  CreateSandbox(ctx_, "a", {WithImage(image_)}, client_).Close();
  Snapshot::Create(ctx_, "a", {.name = "s"}, client_);
  const auto inode = [&] {
    return base::StampOf(GetSandbox(ctx_, "a", client_).Upper().path)->inode;
  };
  const auto before = inode();
  {
    MappedFile mapped(GetSandbox(ctx_, "a", client_).Upper().path);
    mapped.Dirty();
    for (const std::function<void()>& call : std::vector<std::function<void()>>{
             [&] { Snapshot::Restore(ctx_, "a", "s", client_); },
             [&] { RemoveSandbox(ctx_, "a", client_); },
             [&] {
               CreateSandbox(ctx_, "a", {WithSnapshot("s"), WithReplace()}, client_).Close();
             }}) {
      EXPECT_THAT(
          Refusal(ErrorKind::kSandboxStillRunning, call),
          AllOf(HasSubstr("sandbox 'a'"), HasSubstr("open for writing"), HasSubstr("fuser")));
      EXPECT_EQ(inode(), before);
    }
  }
  Snapshot::Restore(ctx_, "a", "s", client_);
  EXPECT_NE(inode(), before);
  RemoveSandbox(ctx_, "a", client_);
}

// A server may fork its workers while other threads create sandboxes.
TEST_F(ContainerTest, ProcessThatWasForkedWhileADiskWasMadeDoesNotKeepItFromBeingSnapshotted) {
  pid_t child = -1;
  const Context ctx = ctx_.WithProgress([&](const Progress& progress) {
    if (child >= 0 || progress.phase != "copy") return;
    child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
  });
  CreateSandbox(ctx_, "first", {WithImage(image_)}, client_).Close();  // The image is cached now.
  CreateSandbox(ctx, "a", {WithImage(image_)}, client_).Close();
  ASSERT_GT(child, 0);
  Snapshot::Create(ctx_, "a", {.name = "s"}, client_);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace msb::test
