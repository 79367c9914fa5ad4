// SPDX-License-Identifier: Apache-2.0
//
// QEMU is killed at each step of a start and a stop, and while it writes to its disk. The library
// must report that at once, and the sandbox must stay usable.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <string>

#include "tests/support/syscall_tracer.h"
#include "tests/vm/small_vm.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

constexpr auto kEndTimeout = seconds(60);

class QemuKillTest : public SmallVmTest {
 protected:
  static constexpr int kDone = 0;
  static constexpr int kRefused = 10;
  static constexpr int kOtherError = 11;

  void SetUp() override {
    SmallVmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    Client client = NewClient();
    CreateSandbox(ctx_, "a", {WithImage(image_), WithOCIUpperSize(64)}, client).Kill(ctx_);
    ExpectAllEnd();
  }

  // Makes the call in a child process, and kills QEMU before the n-th of its steps, counted from
  // the start of QEMU.
  TracedRun KillQemuAtStep(int n, const std::function<void(Client&)>& call) {
    const auto is_step = [&](const SystemCall& system_call) {
      return IsStep(system_call) && !ProcessesIn(sandboxes_).empty();
    };
    const auto report = [&] {
      try {
        Client client = NewClient();
        call(client);
        return kDone;
      } catch (const Error& e) {
        if (e.kind() == ErrorKind::kIO) return kRefused;
        fmt::print(stderr, "{}\n", e.what());
        return kOtherError;
      }
    };
    const auto kill_qemu = [&](pid_t) {
      for (const pid_t pid : ProcessesIn(sandboxes_)) {
        const auto identity = base::ProcessIdentity::Of(pid);
        const auto process = identity ? base::ProcessHandle::Open(*identity) : std::nullopt;
        if (!process) continue;
        process->Kill();
        EXPECT_TRUE(process->AwaitEnd(ctx_.WithTimeout(seconds(30))));
      }
    };
    return InterfereAtSyscall(n, is_step, report, kill_qemu);
  }

  void ExpectStartable() {
    Client client = NewClient();
    StartSandbox(ctx_, "a", client).Kill(ctx_);
    EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
    ExpectNoRemains("a");
    ExpectAllEnd();
  }

  // Returns a client whose QEMU is this shell script, except when the library looks for KVM.
  Client ClientOf(const std::string& script) const {
    const fs::path path = dir_ / "qemu";
    WriteFile(path, "#!/bin/sh\ncase \"$*\" in *'-accel kvm'*) exit 1 ;; esac\n" + script + "\n");
    fs::permissions(path, fs::perms::owner_all);
    Config config = SmallConfig();
    config.qemu.binary = path;
    config.cache_dir = dir_ / "cache";  // The accelerator is remembered for one binary.
    return Client(config);
  }
};

TEST_F(QemuKillTest, AStartReportsThatQemuEndedOrRestartsACrashedSandbox) {
  bool seen_refused = false;
  bool seen_crashed = false;
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    const TracedRun run = KillQemuAtStep(n, [&](Client& client) {
      const Sandbox sandbox = StartSandbox(ctx_, "a", client);
      _exit(kDone);
    });
    ExpectAllEnd();
    if (run.exit_status == kDone) {
      seen_crashed = true;
      EXPECT_EQ(StatusOf("a"), SandboxStatus::kCrashed);
    } else {
      seen_refused = true;
      EXPECT_EQ(run.exit_status, kRefused);
      EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
      ExpectNoRemains("a");
    }
    ExpectStartable();
    if (!run.interfered || HasFailure()) break;
  }
  EXPECT_TRUE(seen_refused);
  EXPECT_TRUE(seen_crashed);
}

TEST_F(QemuKillTest, AStopSucceedsHoweverQemuEnds) {
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    StartDetached("a");
    const TracedRun run = KillQemuAtStep(n, [&](Client& client) {
      GetSandbox(ctx_, "a", client).Stop(ctx_, {WithStopTimeout(kEndTimeout)});
    });
    EXPECT_EQ(run.exit_status, kDone);
    // It has crashed if it was killed before Stop looked at it.
    EXPECT_NE(StatusOf("a"), SandboxStatus::kRunning);
    ExpectNoRemains("a");
    ExpectAllEnd();
    if (run.interfered && !HasFailure()) continue;
    EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
    EXPECT_GT(n, 5);
    break;
  }
  ExpectStartable();
}

TEST_F(QemuKillTest, OneThatDiesAtOnceIsReported) {
  Client dying = ClientOf("kill -9 $$");
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", dying), ErrorKind::kIO, "did not start sandbox 'a'",
                   "look at the kernel's log");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  ExpectNoRemains("a");
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "b", {WithImage(image_)}, dying), ErrorKind::kIO,
                   "did not start sandbox 'b'", "look at the kernel's log");
  EXPECT_FALSE(fs::exists(sandboxes_ / "b"));
  ExpectStartable();
}

// A client that does not understand the record must not take the disk away from a VM.
TEST_F(QemuKillTest, ADamagedRecordDoesNotHideAVm) {
  StartDetached("a");
  const fs::path record = sandboxes_ / "a" / "sandbox.json";
  const std::string good = ReadFile(record);
  std::string later = good;
  WriteFile(record, later.replace(later.find("msb.sandbox/1"), 13, "msb.sandbox/2"));
  const auto before = ListTree(sandboxes_);
  Client client = NewClient();
  EXPECT_MSB_ERROR(RemoveSandbox(ctx_, "a", client), ErrorKind::kSandboxStillRunning,
                   "sandbox 'a' has a damaged record", "stop the VM first");
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_), WithReplace()}, client),
                   ErrorKind::kSandboxStillRunning, "sandbox 'a' has a damaged record",
                   "stop the VM first");
  EXPECT_EQ(ListTree(sandboxes_), before);
  EXPECT_EQ(ProcessesIn(sandboxes_).size(), 1U);
  WriteFile(record, good);
  GetSandbox(ctx_, "a", client).Kill(ctx_);
  WriteFile(record, later);
  RemoveSandbox(ctx_, "a", client);
  EXPECT_FALSE(fs::exists(sandboxes_ / "a"));
}

TEST_F(QemuKillTest, QemuFollowsNoLinksOutOfTheSandbox) {
  Client client = NewClient();
  const fs::path console = sandboxes_ / "a" / "console.log";
  fs::remove(console);
  fs::create_symlink(dir_ / "target", console);
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", client), ErrorKind::kIO,
                   "/console.log must be a regular file, but is a symbolic link");
  EXPECT_FALSE(fs::exists(dir_ / "target"));
  fs::remove(console);
  for (const auto& entry : fs::directory_iterator(sandboxes_ / "a")) {
    if (!entry.path().filename().native().starts_with("sha256_")) continue;
    fs::rename(entry.path(), dir_ / "private");
    fs::create_symlink(dir_ / "private", entry.path());
    break;
  }
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", client), ErrorKind::kIO, "/sha256_",
                   "must be a regular file, but is a symbolic link");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  EXPECT_TRUE(ProcessesIn(sandboxes_).empty());
}

TEST_F(QemuKillTest, NothingIsHeldOfVmsThatOthersEnded) {
  Client client = NewClient();
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  std::ptrdiff_t after_first = 0;
  for (int round = 0; round < 4; ++round) {
    const Sandbox sandbox = StartSandbox(ctx_, "a", client);
    Client other = NewClient();
    GetSandbox(ctx_, "a", other).Kill(ctx_);
    if (round == 0) after_first = descriptors();
  }
  EXPECT_LE(descriptors(), after_first);
  ExpectAllEnd();
}

// Whenever a VM has a disk open, the record of its sandbox says so.
TEST_F(QemuKillTest, TheRecordNamesQemuBeforeItBegins) {
  Client client = ClientOf(
      "grep -q '\"status\":\"running\"' sandbox.json && grep -q \"\\\"pid\\\":$$,\" sandbox.json "
      "|| "
      "exit 1\n"
      "exec qemu-system-x86_64 \"$@\"");
  Sandbox sandbox = StartSandbox(ctx_, "a", client);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Kill(ctx_);
  CreateSandbox(ctx_, "b", {WithImage(image_)}, client).Kill(ctx_);
}

// Either the call fails and leaves no snapshot, or it succeeds. The disk keeps all data, and its
// chain grows from one try to the next.
TEST_F(QemuKillTest, ALiveSnapshotReportsThatQemuEndedOrSucceeds) {
  fs::create_directory(home_ / "snapshots");
  bool seen_refused = false;
  bool seen_done = false;
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    const std::string live = fmt::format("live-{}", n);
    const std::string stopped = fmt::format("stopped-{}", n);
    const char byte = static_cast<char>('!' + n % 90);
    StartDetached("a");
    WriteDisk("a", byte, 0);
    const TracedRun run = KillQemuAtStep(n, [&](Client& client) {
      Snapshot::Create(ctx_, "a", {.name = live, .live = LiveSnapshot::kCrashConsistent}, client);
    });
    Client client = NewClient();
    if (!run.interfered) GetSandbox(ctx_, "a", client).Kill(ctx_);
    ExpectAllEnd();
    ExpectSnapshotsSealed();
    const bool is_done = run.exit_status == kDone;
    (is_done ? seen_done : seen_refused) = true;
    EXPECT_TRUE(is_done || run.exit_status == kRefused) << run.exit_status;
    EXPECT_EQ(fs::exists(home_ / "snapshots" / live), is_done);
    if (is_done) {
      EXPECT_EQ(BlocksOf(live, 1), std::string(1, byte));
    }
    Snapshot::Create(ctx_, "a", {.name = stopped}, client);
    EXPECT_EQ(BlocksOf(stopped, 1), std::string(1, byte));
    ExpectSnapshotsSealed();
    if (!run.interfered || HasFailure()) break;
  }
  EXPECT_TRUE(seen_refused);
  EXPECT_TRUE(seen_done);
  ExpectStartable();
}

// What a guest wrote before a flush must be there. Later writes may be there or not, but the disk
// must be consistent. A snapshot can be taken as soon as no process writes any more, but not
// earlier.
TEST_F(QemuKillTest, TheDiskOfACrashedVmCanBeSealed) {
  if (base::FindProgram("qemu-img").empty()) GTEST_SKIP() << "no qemu-img on the PATH";
  constexpr std::size_t kKept = 64 << 10;
  for (int round = 0; round < 8; ++round) {
    SCOPED_TRACE(round);
    StartDetached("a");
    Client client = NewClient();
    const auto process = base::ProcessHandle::Open(ProcessOf(ctx_, client, "a"));
    ASSERT_TRUE(process);
    {
      GuestDisk disk(ctx_, sandboxes_ / "a");
      disk.Write(static_cast<char>('A' + round), 0);
      for (int i = 1; i < 32; ++i) disk.Do(fmt::format("aio_write -P 1 {}M 2M", i));
    }
    process->Kill();
    const std::string name = "crashed-" + std::to_string(round);
    const Context limited = ctx_.WithTimeout(seconds(60));
    for (bool created = false; !created;) {
      try {
        Snapshot::Create(limited, "a", {.name = name, .record_integrity = true}, client);
        created = true;
      } catch (const Error& e) {
        ASSERT_EQ(e.kind(), ErrorKind::kSnapshotSandboxRunning) << e.what();
      }
    }
    ExpectAllEnd();
    ExpectSnapshotsSealed();
    const auto artifact = Snapshot::Open(ctx_, name, client);
    EXPECT_EQ(artifact.Verify(ctx_).upper.kind, "verified");
    // Check the link in the sandbox's directory, where its backing files are. Status 3 means that
    // there are leaked clusters and no other errors.
    const auto sealed = sandboxes_ / "a" / ("sha256_" + artifact.Digest().substr(7) + ".qcow2");
    const CommandResult check = RunCommand("qemu-img check '" + sealed.native() + "'");
    EXPECT_TRUE(check.status == 0 || check.status == 3) << check.status << check.output;
    Snapshot::Flatten(ctx_, name, dir_ / "flat", {.format = DiskFormat::kRaw}, client);
    EXPECT_EQ(ReadFile(dir_ / "flat").substr(0, kKept),
              std::string(kKept, static_cast<char>('A' + round)));
    fs::remove(dir_ / "flat");
  }
  ExpectStartable();
}

}  // namespace
}  // namespace msb::test
