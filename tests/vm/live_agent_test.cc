// SPDX-License-Identifier: Apache-2.0
//
// Live snapshots of a guest with QEMU's guest agent and a mounted file system. The library and QEMU
// are also killed while that is frozen.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "src/base/file.h"
#include "src/vmm/qemu_freezer.h"
#include "tests/support/build.h"
#include "tests/support/syscall_tracer.h"
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

constexpr auto kFrozen = LiveSnapshot::kFilesystemConsistent;

// A step of a live snapshot: the first system call with this number from the one on that sends a
// message with this text.
struct FrozenStep {
  const char* message;
  long call;
};

class LiveAgentTest : public GuestTest {
 protected:
  void SetUp() override {
    GuestTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    for (const char* program : {"mkfs.ext4", "e2fsck", "debugfs"}) {
      if (RunTool(fmt::format("command -v {}", program)).status != 0) {
        GTEST_SKIP() << "no " << program << " on the PATH";
      }
    }
    ASSERT_EQ(RunTool("mkfs.ext4 -q -F '" + image_.native() + "'").status, 0);
  }

  // Runs a command that may be a program for file systems.
  static CommandResult RunTool(const std::string& command) {
    return RunCommand("PATH=$PATH:/sbin:/usr/sbin; " + command);
  }

  Config AgentConfig() const { return AgentConfigFor("msb.mount msb.agent"); }

  // Returns the number of the last record that the console of a sandbox shows for one of its boots.
  static int LastRecord(const Client& client, const std::string& name, int boot = 1) {
    int last = 0;
    for (const std::string& line : ConsoleOf(client, name, boot)) {
      if (!line.starts_with("RECORD-")) continue;
      std::from_chars(line.data() + 7, line.data() + line.size(), last);
    }
    return last;
  }

  void AwaitRecord(const Client& client, const std::string& name, int record, int boot = 1) const {
    const Context limited = ctx_.WithTimeout(seconds(120));
    while (LastRecord(client, name, boot) < record) {
      ASSERT_FALSE(limited.Done())
          << "the writer of " << name << " is stuck at " << LastRecord(client, name, boot);
      std::this_thread::sleep_for(milliseconds(20));
    }
  }

  // Expects the numbers of records from 1 on, at least up to this one.
  static void ExpectRecords(const std::string& records, int at_least) {
    const auto count = std::count(records.begin(), records.end(), '\n');
    EXPECT_GE(count, at_least);
    std::string expected;
    for (int i = 1; i <= count; ++i) expected += std::to_string(i) + "\n";
    EXPECT_EQ(records, expected);
  }

  // Creates a filesystem-consistent snapshot of the sandbox "box", whose writer has written at
  // least these records, and expects its file system to need no repair and to have them.
  void ExpectSnapshotWorks(Client& client, const std::string& name, int records) {
    const auto made = Snapshot::Create(ctx_, "box", {.name = name, .live = kFrozen}, client);
    EXPECT_EQ(made.Consistency(), "filesystem-consistent");
    const fs::path flat = dir_ / "flat";
    Snapshot::Flatten(ctx_, name, flat, {}, client);
    const CommandResult check = RunTool("e2fsck -fn '" + flat.native() + "' 2>&1");
    EXPECT_EQ(check.status, 0) << check.output;
    ExpectRecords(RunTool("debugfs -R 'cat /records' '" + flat.native() + "' 2>/dev/null").output,
                  records);
    fs::remove(flat);
  }

  // Creates a filesystem-consistent snapshot of the sandbox "box" in another process, whose exit
  // status is kRefused if that throws kIO. Interferes before the step.
  TracedRun InterfereWithSnapshot(const FrozenStep& step,
                                  const std::function<void(pid_t)>& interfere) {
    bool is_sent = false;
    const auto is_step = [&](const SystemCall& call) {
      is_sent = is_sent || call.Sends(step.message);
      return is_sent && call.number == step.call;
    };
    const auto snapshot = [&] {
      try {
        Client client(AgentConfig());
        Snapshot::Create(ctx_, "box", {.name = "interrupted", .live = kFrozen}, client);
        return 0;
      } catch (const Error& e) {
        fmt::print(stderr, "in a child: {}\n", e.what());
        return e.kind() == ErrorKind::kIO ? kRefused : 1;
      }
    };
    return InterfereAtSyscall(0, is_step, snapshot, interfere);
  }
  static constexpr int kRefused = 10;

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

  // By default, the file systems of a guest that has an agent are frozen, too.
  const auto later =
      Snapshot::Create(ctx_, "box", {.name = "auto", .live = LiveSnapshot::kAuto}, client);
  EXPECT_EQ(later.Consistency(), "filesystem-consistent");

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
  EXPECT_EQ(RunTool("e2fsck -fn '" + flat.native() + "'").status, 0);

  Sandbox fork = CreateSandbox(ctx_, "fork", {WithSnapshot("live")}, client);
  EXPECT_EQ(Shell(ctx_, fork, "cat /data/file").out, "installed\n");
  ExpectRecords(Shell(ctx_, fork, "cat /data/records").out, before);
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

TEST_F(LiveAgentTest, ACallThatIsKilledWhileTheGuestIsFrozenThawsIt) {
  Client client(AgentConfig());
  Sandbox sandbox = CreateSandbox(ctx_, "box", {WithImage(image_)}, client);
  ASSERT_EQ(Shell(ctx_, sandbox, kWriter).exit_code, 0);
  AwaitRecord(client, "box", 1);
  // The guest freezes; it is frozen; QEMU is about to exchange the disk, and has exchanged it; the
  // guest is about to thaw, and thaws.
  const std::vector<FrozenStep> steps = {
      {"guest-fsfreeze-freeze", SYS_recvfrom}, {"guest-fsfreeze-freeze", SYS_connect},
      {"\"transaction\"", SYS_sendto},         {"\"transaction\"", SYS_recvfrom},
      {"guest-fsfreeze-thaw", SYS_sendto},     {"guest-fsfreeze-thaw", SYS_recvfrom}};
  for (std::size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(
        fmt::format("killed before system call {} after {}", steps[i].call, steps[i].message));
    const TracedRun run =
        InterfereWithSnapshot(steps[i], [](pid_t child) { kill(child, SIGKILL); });
    ASSERT_TRUE(run.interfered);
    EXPECT_FALSE(fs::exists(home_ / "snapshots/interrupted"));
    // No other call is needed. At most one record was written before the freeze and shown after it.
    const int last = LastRecord(client, "box");
    AwaitRecord(client, "box", last + 2);
    ExpectSnapshotWorks(client, fmt::format("next-{}", i), last);
    if (HasFailure()) break;
  }
  sandbox.Kill(ctx_);
}

TEST_F(LiveAgentTest, AFrozenGuestWhoseQemuIsKilledStartsAgain) {
  Client client(AgentConfig());
  std::vector<Sandbox> boots;
  boots.push_back(CreateSandbox(ctx_, "box", {WithImage(image_), WithDetached()}, client));
  // Before the exchange of the disk, and after it.
  const std::vector<FrozenStep> steps = {{"\"transaction\"", SYS_sendto},
                                         {"guest-fsfreeze-thaw", SYS_sendto}};
  for (std::size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(steps[i].message);
    const int boot = static_cast<int>(i) + 1;
    ASSERT_EQ(Shell(ctx_, boots.back(), kWriter).exit_code, 0);
    AwaitRecord(client, "box", 2, boot);
    const TracedRun run = InterfereWithSnapshot(steps[i], [&](pid_t) {
      const auto qemu = base::ProcessHandle::Open(ProcessOf(ctx_, client, "box"));
      ASSERT_TRUE(qemu);
      qemu->Kill();
      EXPECT_TRUE(qemu->AwaitEnd(ctx_.WithTimeout(seconds(30))));
    });
    ASSERT_TRUE(run.interfered);
    EXPECT_EQ(run.exit_status, kRefused);
    EXPECT_FALSE(fs::exists(home_ / "snapshots/interrupted"));
    EXPECT_EQ(StatusOf("box"), SandboxStatus::kCrashed);
    const int last = LastRecord(client, "box", boot);
    boots.push_back(StartSandbox(ctx_, "box", client));
    ExpectRecords(Shell(ctx_, boots.back(), "cat /data/records").out, last);
    ExpectSnapshotWorks(client, fmt::format("next-{}", i), last);
    ASSERT_EQ(Shell(ctx_, boots.back(), "rm /data/records").exit_code, 0);
    if (HasFailure()) break;
  }
  boots.back().Kill(ctx_);
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
