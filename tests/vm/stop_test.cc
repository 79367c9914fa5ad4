// SPDX-License-Identifier: Apache-2.0
//
// The ways in which a VM ends: on request, by force, by itself, or not at all.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/vm/guest.h"

namespace msb::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

using VmStopTest = GuestTest;

TEST_F(VmStopTest, AGuestThatIsAskedToShutsDown) {
  Client client = ClientFor();
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  WaitForConsole(ctx_, client, "a", "GUEST-READY");
  // While it runs, nothing else may use its disk.
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", client), ErrorKind::kSandboxStillRunning,
                   "sandbox 'a' is already running", "stop it first");
  EXPECT_MSB_ERROR(RemoveSandbox(ctx_, "a", client), ErrorKind::kSandboxStillRunning,
                   "sandbox 'a' is running", "stop it first");
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "a", {.name = "s"}, client),
                   ErrorKind::kSnapshotSandboxRunning, "sandbox 'a' is running", "stop it first");
  EXPECT_EQ(ProcessesIn(home_ / "sandboxes/a").size(), 1U);

  sandbox.Stop(ctx_, {WithStopTimeout(seconds(100))});
  EXPECT_THAT(ConsoleOf(client, "a"), Contains("GUEST-DOWN"));
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_), SandboxStatus::kStopped);
  ExpectNoRemains("a");

  sandbox.Stop(ctx_);
  sandbox.Kill(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  sandbox.Close();
  RemoveSandbox(ctx_, "a", client);
  EXPECT_THAT(ListTree(home_ / "sandboxes"), IsEmpty());
}

TEST_F(VmStopTest, AGuestThatStillBootsShutsDownOnceItIsUp) {
  Client client = ClientFor("msb.write=1:kept");
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  sandbox.Stop(ctx_, {WithStopTimeout(seconds(100))});
  EXPECT_THAT(SlotsLeft(ConsoleOf(client, "a")), ElementsAre("-", "kept", "-", "-"));
  EXPECT_THAT(ConsoleOf(client, "a"), Contains("GUEST-DOWN"));
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
}

TEST_F(VmStopTest, AGuestThatDoesNotListenIsEndedAfterTheTimeout) {
  Client client = ClientFor("msb.deaf");
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  WaitForConsole(ctx_, client, "a", "GUEST-READY");
  const auto start = steady_clock::now();
  sandbox.Stop(ctx_, {WithStopTimeout(milliseconds(500))});
  EXPECT_GE(steady_clock::now() - start, milliseconds(500));
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  EXPECT_THAT(ConsoleOf(client, "a"), Not(Contains("GUEST-DOWN")));
  ExpectNoRemains("a");
}

TEST_F(VmStopTest, AKilledSandboxEndsAtOnce) {
  Client client = ClientFor();
  // The machine is still in its firmware.
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  sandbox.Kill(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
  sandbox.Close();

  sandbox = StartSandbox(ctx_, "a", client);
  WaitForConsole(ctx_, client, "a", "GUEST-READY");
  GetSandbox(ctx_, "a", client).Kill(ctx_);
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_), SandboxStatus::kStopped);
  EXPECT_THAT(ConsoleOf(client, "a"), Not(Contains("GUEST-DOWN")));
  ExpectNoRemains("a");
}

TEST_F(VmStopTest, AGuestMayPowerItselfOff) {
  Client client = ClientFor("msb.write=3:done msb.exit");
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_.WithTimeout(seconds(120))), SandboxStatus::kStopped);
  EXPECT_THAT(ConsoleOf(client, "a"), Contains("GUEST-DOWN"));
  sandbox.Stop(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
  sandbox.Close();

  sandbox = StartSandbox(ctx_, "a", client);
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_.WithTimeout(seconds(120))), SandboxStatus::kStopped);
  EXPECT_THAT(SlotsFound(ConsoleOf(client, "a", 2)), ElementsAre("-", "-", "-", "done"));
  // No call has ended the VM, but its disk is free.
  EXPECT_EQ(Snapshot::Create(ctx_, "a", {.name = "s"}, client).SourceSandbox(), "a");
  RemoveSandbox(ctx_, "a", client);
}

TEST_F(VmStopTest, GuestThatPanicsIsRecordedAsCrashed) {
  Client client = ClientFor("msb.panic");
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  // This guest has no pvpanic driver, and reboots: panic=-1.
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_.WithTimeout(seconds(120))), SandboxStatus::kCrashed);
  EXPECT_THAT(ConsoleOf(client, "a"), Contains("GUEST-READY"));
  EXPECT_THAT(ConsoleOf(client, "a"), Not(Contains("GUEST-DOWN")));
  sandbox.Close();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kCrashed);
}

TEST_F(VmStopTest, ASandboxWhoseProcessIsKilledHasCrashedAndCanBeStartedAgain) {
  Client client = ClientFor("msb.write=0:kept");
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  WaitForConsole(ctx_, client, "a", "GUEST-READY");
  base::ProcessHandle::Open(ProcessOf(ctx_, client, "a")).value().Kill();
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_.WithTimeout(seconds(60))), SandboxStatus::kCrashed);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kCrashed);
  sandbox.Close();

  sandbox = StartSandbox(ctx_, "a", client);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  const Lines boot = WaitForConsole(ctx_, client, "a", "GUEST-READY", 2);
  EXPECT_THAT(SlotsFound(boot), ElementsAre("kept", "-", "-", "-"));
  sandbox.Stop(ctx_, {WithStopTimeout(seconds(60))});
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
}

}  // namespace
}  // namespace msb::test
