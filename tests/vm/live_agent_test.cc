// SPDX-License-Identifier: Apache-2.0
//
// Live snapshots of a guest with QEMU's guest agent and a mounted file system.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>

#include "src/base/file.h"
#include "src/vmm/qemu_freezer.h"
#include "tests/support/build.h"
#include "tests/vm/guest.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

// Appends numbered records to a file, each flushed to the disk before the console shows it.
constexpr const char* kWriter =
    "i=0; while :; do i=$((i + 1)); "
    "echo $i | dd of=/data/records oflag=append conv=notrunc,fsync 2>/dev/null || exit; "
    "echo RECORD-$i >/dev/console; done >/dev/null 2>&1 &";

class LiveAgentTest : public GuestTest {
 protected:
  void SetUp() override {
    GuestTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    for (const char* program : {"mkfs.ext4", "e2fsck"}) {
      if (Run(fmt::format("command -v {}", program)) != 0) {
        GTEST_SKIP() << "no " << program << " on the PATH";
      }
    }
    ASSERT_EQ(Run("mkfs.ext4 -q -F '" + image_.native() + "'"), 0);
  }

  static int Run(const std::string& command) {
    return RunCommand("PATH=$PATH:/sbin:/usr/sbin; " + command).status;
  }

  Config AgentConfig() const { return AgentConfigFor("msb.mount msb.agent"); }

  // Returns the number of the last record that the console of a sandbox shows.
  static int LastRecord(const Client& client, const std::string& name) {
    int last = 0;
    for (const std::string& line : ConsoleOf(client, name)) {
      if (!line.starts_with("RECORD-")) continue;
      std::from_chars(line.data() + 7, line.data() + line.size(), last);
    }
    return last;
  }

  void AwaitRecord(const Client& client, const std::string& name, int record) const {
    const Context limited = ctx_.WithTimeout(seconds(120));
    while (LastRecord(client, name) < record) {
      ASSERT_FALSE(limited.Done())
          << "the writer of " << name << " is stuck at " << LastRecord(client, name);
      std::this_thread::sleep_for(milliseconds(20));
    }
  }

  static ExecResult Shell(const Context& ctx, Sandbox& sandbox, const std::string& script) {
    return sandbox.Exec(ctx, {"sh", "-c", script});
  }

  // Returns the seconds since the guest has booted.
  double UptimeOf(Sandbox& sandbox) const {
    return std::stod(Shell(ctx_, sandbox, "cat /proc/uptime").out);
  }
};

TEST_F(LiveAgentTest, AFilesystemConsistentSnapshotHasEveryAcknowledgedRecord) {
  Client client(AgentConfig());
  Sandbox sandbox = CreateSandbox(ctx_, "box", {WithImage(image_)}, client);
  ASSERT_EQ(Shell(ctx_, sandbox, "echo installed >/data/file").exit_code, 0);
  ASSERT_EQ(Shell(ctx_, sandbox, kWriter).exit_code, 0);
  AwaitRecord(client, "box", 3);

  constexpr const char* kBoot = "cat /proc/sys/kernel/random/boot_id";
  const std::string boot = Shell(ctx_, sandbox, kBoot).out;
  const double uptime = UptimeOf(sandbox);
  const int before = LastRecord(client, "box");
  const auto snapshot = Snapshot::Create(
      ctx_, "box", {.name = "live", .live = LiveSnapshot::kFilesystemConsistent}, client);
  EXPECT_EQ(snapshot.Consistency(), "filesystem-consistent");
  AwaitRecord(client, "box", LastRecord(client, "box") + 3);

  // The original still runs, and lost nothing.
  EXPECT_EQ(Shell(ctx_, sandbox, kBoot).out, boot);
  EXPECT_GT(UptimeOf(sandbox), uptime);
  ASSERT_EQ(Shell(ctx_, sandbox, "kill $(pidof dd) 2>/dev/null; sync").exit_code, 0);
  const int written = LastRecord(client, "box");
  const std::string records = Shell(ctx_, sandbox, "cat /data/records").out;
  EXPECT_GE(std::count(records.begin(), records.end(), '\n'), written);

  // The file system of the snapshot needs no repair.
  const fs::path flat = dir_ / "flat";
  Snapshot::Flatten(ctx_, "live", flat, {}, client);
  EXPECT_EQ(Run("e2fsck -fn '" + flat.native() + "'"), 0);

  Sandbox fork = CreateSandbox(ctx_, "fork", {WithSnapshot("live")}, client);
  EXPECT_EQ(Shell(ctx_, fork, "cat /data/file").out, "installed\n");
  const std::string kept = Shell(ctx_, fork, "cat /data/records").out;
  EXPECT_GE(std::count(kept.begin(), kept.end(), '\n'), before);
  std::string expected;
  for (int i = 1; i <= std::count(kept.begin(), kept.end(), '\n'); ++i) {
    expected += std::to_string(i) + "\n";
  }
  EXPECT_EQ(kept, expected);
  fork.Kill(ctx_);
  sandbox.Kill(ctx_);
}

// A process that is killed while the file systems are frozen does not leave them frozen.
TEST_F(LiveAgentTest, AKilledCallThawsTheGuest) {
  Client client(AgentConfig());
  Sandbox sandbox = CreateSandbox(ctx_, "box", {WithImage(image_)}, client);
  ASSERT_EQ(Shell(ctx_, sandbox, kWriter).exit_code, 0);
  AwaitRecord(client, "box", 1);
  const fs::path frozen = dir_ / "frozen";
  Child child([&] {
    const base::UniqueFd dir = base::OpenDirectory(home_ / "sandboxes/box");
    const vmm::GuestAddress guest{dir.get(), "box"};
    const vmm::Warn ignore = [](const std::string&) {};
    vmm::QemuFreezer freezer(guest, ignore);
    if (!freezer.Freeze(ctx_, LiveSnapshot::kFilesystemConsistent)) throw std::runtime_error("no");
    WriteFile(frozen, "");
    for (;;) pause();
  });
  const Context limited = ctx_.WithTimeout(seconds(60));
  while (!fs::exists(frozen)) {
    ASSERT_FALSE(limited.Done()) << "not frozen";
    std::this_thread::sleep_for(milliseconds(10));
  }
  const int last = LastRecord(client, "box");
  EXPECT_EQ(child.Kill(), 128 + SIGKILL);
  // No other call is needed. At most one record was written before the freeze and shown after it.
  AwaitRecord(client, "box", last + 3);
  // The agent is free again.
  EXPECT_EQ(Shell(ctx_, sandbox, "echo works").out, "works\n");
  sandbox.Kill(ctx_);
}

TEST_F(LiveAgentTest, TheExampleReadsInEachWorkerWhatWasPrepared) {
  const fs::path example = ExamplesDir() / "snapshot_fork";
  if (!fs::exists(example)) GTEST_SKIP() << example << " was not built";
  const Config config = AgentConfig();
  const CommandResult result = RunCommand(
      fmt::format("MSB_HOME='{}' MSB_BACKEND=qemu MSB_KERNEL='{}' MSB_INITRD='{}' MSB_APPEND='{}' "
                  "MSB_DIRECTORY=/data '{}' '{}' 2 2>&1",
                  home_.native(), config.qemu.kernel.native(), config.qemu.initrd.native(),
                  config.qemu.append, example.native(), image_.native()));
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("fork-worker-1 reads: prepared once\n"));
  EXPECT_THAT(result.output, HasSubstr("fork-worker-2 reads: prepared once\n"));
}

}  // namespace
}  // namespace msb::test
