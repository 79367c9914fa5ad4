// SPDX-License-Identifier: Apache-2.0
//
// Operations on a VM that was booted in another container, that is, in another PID namespace.

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "tests/support/pid_namespace.h"
#include "tests/vm/small_vm.h"

namespace msb::test {
namespace {

class VmContainerTest : public SmallVmTest {
 protected:
  void SetUp() override {
    SmallVmTest::SetUp();
    if (IsSkipped()) return;
    if (const auto why = WhyNoPidNamespaces()) GTEST_SKIP() << *why;
    Client client = NewClient();
    CreateSandbox(ctx_, "a", {WithImage(image_)}, client).Kill(ctx_);
    StartDetached("a");
  }

  // Calls function in another container. Returns what failed there, or an empty string.
  static std::string Elsewhere(const std::function<void()>& function) {
    return ContainerProcess(function).Wait();
  }

  static void Require(bool condition, const std::string& what) {
    if (!condition) throw std::runtime_error(what);
  }

  static void RequireRefusal(ErrorKind kind, const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& e) {
      return Require(e.kind() == kind, e.what());
    }
    throw std::runtime_error("no error");
  }
};

TEST_F(VmContainerTest, RunningVmIsNotTakenForACrashedOne) {
  EXPECT_EQ(Elsewhere([&] {
              Client client = NewClient();
              Require(GetSandbox(ctx_, "a", client).Status() == SandboxStatus::kRunning, "status");
              RequireRefusal(ErrorKind::kSnapshotSandboxRunning,
                             [&] { Snapshot::Create(ctx_, "a", {.name = "s"}, client); });
              RequireRefusal(ErrorKind::kSandboxStillRunning,
                             [&] { RemoveSandbox(ctx_, "a", client); });
              RequireRefusal(ErrorKind::kSandboxStillRunning,
                             [&] { std::ignore = StartSandbox(ctx_, "a", client); });
            }),
            "");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  Client client = NewClient();
  GetSandbox(ctx_, "a", client).Kill(ctx_);
  ExpectNoRemains("a");
}

TEST_F(VmContainerTest, StopShutsTheGuestDown) {
  EXPECT_EQ(Elsewhere([&] {
              Client client = NewClient();
              GetSandbox(ctx_, "a", client).Stop(ctx_, {WithStopTimeout(std::chrono::seconds(60))});
              Require(GetSandbox(ctx_, "a", client).Status() == SandboxStatus::kStopped, "status");
            }),
            "");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
  ExpectAllEnd();
}

TEST_F(VmContainerTest, KillEndsTheVm) {
  EXPECT_EQ(Elsewhere([&] {
              Client client = NewClient();
              GetSandbox(ctx_, "a", client).Kill(ctx_);
            }),
            "");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
  ExpectAllEnd();
}

TEST_F(VmContainerTest, VmThatIsKilledHasCrashedForAll) {
  for (const pid_t pid : ProcessesIn(sandboxes_)) kill(pid, SIGKILL);
  ExpectAllEnd();
  EXPECT_EQ(Elsewhere([&] {
              Client client = NewClient();
              Require(GetSandbox(ctx_, "a", client).Status() == SandboxStatus::kCrashed, "status");
              StartSandbox(ctx_, "a", client).Kill(ctx_);
            }),
            "");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
}

}  // namespace
}  // namespace msb::test
