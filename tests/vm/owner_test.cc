// SPDX-License-Identifier: Apache-2.0
//
// A VM belongs to the process that booted it until that process releases it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <thread>

#include "tests/vm/guest.h"

namespace msb::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Contains;

using VmOwnerTest = GuestTest;

TEST_F(VmOwnerTest, ADetachedOneIsStoppedByAnotherProcess) {
  Child owner([&] {
    Client client = ClientFor();
    CreateSandbox(ctx_, "a", {WithImage(image_), WithDetached()}, client).Close();
  });
  ASSERT_EQ(owner.Wait(), 0);
  Client client = ClientFor();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  WaitForConsole(ctx_, client, "a", "GUEST-READY");
  GetSandbox(ctx_, "a", client).Stop(ctx_, {WithStopTimeout(seconds(60))});
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  EXPECT_THAT(ConsoleOf(client, "a"), Contains("GUEST-DOWN"));
  ExpectNoRemains("a");
}

TEST_F(VmOwnerTest, OneThatWasLetGoSurvivesItsOwner) {
  Child owner([&] {
    Client client = ClientFor();
    CreateSandbox(ctx_, "a", {WithImage(image_)}, client).Detach(ctx_);
  });
  ASSERT_EQ(owner.Wait(), 0);
  Client client = ClientFor();
  // A VM that ends with its owner would end before this line is written.
  WaitForConsole(ctx_, client, "a", "GUEST-READY");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  GetSandbox(ctx_, "a", client).Kill(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
}

TEST_F(VmOwnerTest, AnyOtherEndsWithItsOwnerHoweverThatEnds) {
  Child owner([&] {
    Client client = ClientFor();
    const Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
    pause();
  });
  Client client = ClientFor();
  const Context limited = ctx_.WithTimeout(seconds(60));
  std::optional<base::ProcessHandle> process;
  while (!process) {
    std::this_thread::sleep_for(milliseconds(20));
    try {
      limited.Check();
      if (StatusOf("a") != SandboxStatus::kRunning) continue;
      process = base::ProcessHandle::Open(ProcessOf(ctx_, client, "a"));
    } catch (const Error& e) {
      // The owner has not made the sandbox yet.
      ASSERT_EQ(e.kind(), ErrorKind::kSandboxNotFound) << e.what();
    }
  }
  EXPECT_EQ(owner.Kill(), 128 + SIGKILL);
  EXPECT_TRUE(process->AwaitEnd(ctx_.WithTimeout(seconds(30))));
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kCrashed);

  Sandbox sandbox = StartSandbox(ctx_, "a", client);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Kill(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
}

}  // namespace
}  // namespace msb::test
