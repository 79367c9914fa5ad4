// SPDX-License-Identifier: Apache-2.0
//
// A VM belongs to the process that booted it until that process releases it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/build.h"
#include "tests/vm/small_vm.h"

namespace msb::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Contains;

namespace fs = std::filesystem;

using VmOwnerTest = GuestTest;

class CopiedHomeTest : public SmallVmTest {
 protected:
  void SetUp() override {
    SmallVmTest::SetUp();
    if (IsSkipped()) return;
    Client client = NewClient();
    CreateSandbox(ctx_, "a", {WithImage(image_)}, client).Kill(ctx_);
  }

  static void ForgetDomain(const fs::path& record) {
    nlohmann::json json = nlohmann::json::parse(ReadFile(record));
    ASSERT_EQ(json.at("process").erase("lock_domain"), 1U);
    WriteFile(record, json.dump());
  }
};

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

// In a copy of a home, the record of a sandbox names the VM of the original.
TEST_F(CopiedHomeTest, TheVmOfTheOriginalIsNotEnded) {
  StartDetached("a");
  const TempDir memory("/dev/shm");
  const std::vector<std::function<void(Client&)>> calls = {
      [&](Client& client) { GetSandbox(ctx_, "a", client).Stop(ctx_); },
      [&](Client& client) { GetSandbox(ctx_, "a", client).Kill(ctx_); },
      [&](Client& client) {
        CreateSandbox(ctx_, "a", {WithImage(image_), WithReplace()}, client).Kill(ctx_);
      },
      [&](Client& client) { StartSandbox(ctx_, "a", client).Kill(ctx_); },
      [&](Client& client) { RemoveSandbox(ctx_, "a", client); }};
  struct Case {
    fs::path copy;
    bool has_domain = true;
  };
  const std::vector<Case> cases = {
      {dir_ / "copy"}, {dir_ / "copy", false}, {memory / "copy"}, {memory / "copy", false}};
  for (const auto& [copy, has_domain] : cases) {
    for (const auto& call : calls) {
      ASSERT_EQ(RunCommand("cp -a '" + home_.native() + "' '" + copy.native() + "'").status, 0);
      // Without a domain, the lock is judged as on FUSE.
      if (!has_domain) ForgetDomain(copy / "sandboxes/a/sandbox.json");
      Config config = SmallConfig();
      config.home = copy;
      Client client(config);
      EXPECT_EQ(GetSandbox(ctx_, "a", client).Status(), SandboxStatus::kCrashed);
      call(client);
      EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
      fs::remove_all(copy);
    }
  }
  Client client = NewClient();
  GetSandbox(ctx_, "a", client).Kill(ctx_);
  ExpectNoRemains("a");
}

}  // namespace
}  // namespace msb::test
