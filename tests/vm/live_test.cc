// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of sandboxes that run, in VMs whose firmware does nothing: what the disks have, how the
// chain continues, and what a call that fails leaves.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "src/base/home.h"
#include "src/vmm/directory_disk.h"
#include "src/vmm/live_seal.h"
#include "src/vmm/qemu_live_disk.h"
#include "src/vmm/record_file.h"
#include "tests/vm/small_vm.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr auto kCrash = LiveSnapshot::kCrashConsistent;

class LiveTest : public SmallVmTest {
 protected:
  void SetUp() override {
    SmallVmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    sandbox_.emplace(CreateSandbox(ctx_, "a", {WithImage(image_), WithOCIUpperSize(64)}, client_));
  }

  SnapshotArtifact Live(const std::string& name) {
    return Snapshot::Create(ctx_, "a", {.name = name, .live = kCrash}, client_);
  }

  // Returns the names of the disk files in the directory of a sandbox.
  std::vector<std::string> DisksOf(const std::string& name) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(sandboxes_ / name)) {
      if (entry.path().extension() == ".qcow2") names.push_back(entry.path().filename());
    }
    return names;
  }

  Config LoggingConfig() {
    Config config = SmallConfig();
    config.log = [this](std::string_view message) {
      const std::lock_guard lock(mutex_);
      log_ += std::string(message) + "\n";
    };
    return config;
  }

  std::mutex mutex_;
  std::string log_;
  Client client_ = Client(LoggingConfig());
  std::optional<Sandbox> sandbox_;
};

TEST_F(LiveTest, EachSnapshotHasWhatWasWrittenBeforeIt) {
  const auto process = ProcessOf(ctx_, client_, "a");
  WriteDisk("a", '1', 0);
  const auto first = Live("first");
  WriteDisk("a", '2', 1);
  const auto second = Snapshot::Create(
      ctx_, "a", {.name = "second", .record_integrity = true, .live = kCrash}, client_);
  WriteDisk("a", '3', 2);
  EXPECT_EQ(ProcessOf(ctx_, client_, "a").pid, process.pid) << "the same VM";
  EXPECT_EQ(first.Consistency(), "crash-consistent");
  EXPECT_EQ(Snapshot::Open(ctx_, "second", client_).Consistency(), "crash-consistent");
  EXPECT_TRUE(second.Labels().empty());
  EXPECT_EQ(first.Format(), "qcow2");
  EXPECT_EQ(second.Parent(), first.Digest());
  sandbox_->Stop(ctx_, {WithStopTimeout(seconds(60))});
  const auto third = Snapshot::Create(ctx_, "a", {.name = "third", .live = kCrash}, client_);
  EXPECT_EQ(third.Consistency(), "stopped");
  EXPECT_EQ(third.Parent(), second.Digest());
  EXPECT_EQ(third.Format(), "qcow2") << "the chain continues in constant time";
  EXPECT_EQ(BlocksOf("first", 1), "1");
  Snapshot::Flatten(ctx_, "first", dir_ / "flat", {}, client_);
  EXPECT_NE(ReadFile(dir_ / "flat").substr(1 << 16, 1), "2") << "written later";
  EXPECT_EQ(BlocksOf("second", 2), "12");
  EXPECT_EQ(BlocksOf("third", 3), "123");
  ExpectSnapshotsSealed();
  for (const auto& artifact : Snapshot::ListDir(ctx_, "", client_)) {
    EXPECT_NO_THROW(std::ignore = artifact.Verify(ctx_)) << artifact.Path();
  }
  EXPECT_EQ(Snapshot::Squash(ctx_, "second", {.name = "squashed"}, client_).Consistency(),
            "crash-consistent");
  Sandbox fork = CreateSandbox(ctx_, "fork", {WithSnapshot("second")}, client_);
  AwaitFirmware("fork");
  fork.Kill(ctx_);
}

// A chain of a hundred snapshots, whose disk is so small that all of them are read quickly.
class LiveChainTest : public LiveTest {
 protected:
  static constexpr int kCount = 100;

  void SetUp() override {
    LiveTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    // A firmware that halts leaves QEMU the time for its commands.
    WriteFile(dir_ / "firmware", FirmwareOf(Joined({WritePlus(), Rest()})));
    sandbox_->Kill(ctx_);
    sandbox_.emplace(
        CreateSandbox(ctx_, "a", {WithImage(image_), WithOCIUpperSize(8), WithReplace()}, client_));
    for (int i = 0; i < kCount; ++i) {
      written_ += static_cast<char>('!' + i % 90);
      WriteDisk("a", written_.back(), i);
      LiveWithIntegrity(fmt::format("s{:03}", i));
    }
  }

  SnapshotArtifact LiveWithIntegrity(const std::string& name) {
    return Snapshot::Create(ctx_, "a", {.name = name, .record_integrity = true, .live = kCrash},
                            client_);
  }

  // Leaves the sandbox as a process does that was killed after it had recorded a switch, and before
  // QEMU opened the overlay. Returns the path of the overlay.
  fs::path InterruptSwitch() const {
    const fs::path sandbox = sandboxes_ / "a";
    const base::UniqueFd dir = base::OpenDirectory(sandbox);
    auto record = vmm::ReadRecord(dir.get(), sandbox).value();
    record.live = vmm::PendingSwitch{.overlay = vmm::NewUpperName(DiskFormat::kQcow2)};
    vmm::MakeOverlay(dir.get(), record.live->overlay, 8 << 20,
                     {record.sandbox.upper->path.filename(), *record.sandbox.upper});
    vmm::SaveRecord(record, dir.get(), sandbox);
    return sandbox / record.live->overlay;
  }

  // Returns the names of the snapshots in the home.
  std::set<std::string> Left() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(home_ / "snapshots"))
      names.insert(entry.path().filename());
    return names;
  }

  // Prunes to the last five, and returns the number of snapshots that this removed.
  std::size_t PruneToFive() { return Snapshot::Prune(ctx_, {.keep_last = 5}, client_).size(); }

  // Expects the content of every snapshot, and of all that it is backed by, to be verified.
  void ExpectAllVerified() {
    ExpectSnapshotsSealed();
    for (const std::string& name : Left()) {
      const SnapshotVerifyReport report = Snapshot::Open(ctx_, name, client_).Verify(ctx_);
      EXPECT_EQ(report.upper.kind, "verified") << name;
      for (const auto& file : report.backing) {
        EXPECT_EQ(file.status.kind, "verified") << name << " is backed by " << file.path;
      }
    }
  }

  // Boots a sandbox from every snapshot.
  void ExpectAllBoot() {
    for (const std::string& name : Left()) {
      Sandbox box = CreateSandbox(ctx_, "boot", {WithSnapshot(name), WithReplace()}, client_);
      AwaitFirmware("boot");
      box.Kill(ctx_);
    }
    RemoveSandbox(ctx_, "boot", client_);
  }

  std::string written_;  // The blocks of the disk.
};

TEST_F(LiveChainTest, AHundredInARowVerifyBootAndCanBePruned) {
  EXPECT_EQ(BlocksOf("s099", kCount), written_);
  // QEMU is asked about the overlay, and its answer must not be longer for a longer chain.
  const fs::path overlay = InterruptSwitch();
  LiveWithIntegrity("s100");
  EXPECT_FALSE(fs::exists(overlay));
  EXPECT_EQ(BlocksOf("s100", kCount), written_);

  Sandbox fork = CreateSandbox(ctx_, "fork", {WithSnapshot("s049")}, client_);
  AwaitFirmware("fork");
  WriteDisk("fork", '~', 0);
  sandbox_->Kill(ctx_);
  Snapshot::Restore(ctx_, "a", "s009", client_);
  StartDetached("a");
  WriteDisk("a", '~', 9);
  LiveWithIntegrity("restored");
  EXPECT_EQ(BlocksOf("restored", 10), written_.substr(0, 9) + "~");
  // The last five need all the others, which they are backed by.
  EXPECT_EQ(PruneToFive(), 0U);
  EXPECT_EQ(Left().size(), std::size_t{kCount + 2});
  ExpectAllVerified();
  ExpectAllBoot();

  GetSandbox(ctx_, "a", client_).Kill(ctx_);
  Snapshot::Squash(ctx_, "s100", {.name = "base", .record_integrity = true}, client_);
  Snapshot::Restore(ctx_, "a", "base", client_);
  StartDetached("a");
  std::set<std::string> kept = {"base"};
  for (int i = 0; i < 5; ++i) {
    written_[static_cast<std::size_t>(i)] = '~';
    WriteDisk("a", '~', i);
    kept.insert(fmt::format("new-{}", i));
    LiveWithIntegrity(fmt::format("new-{}", i));
  }
  // The fork needs the fifty that it is backed by.
  EXPECT_EQ(PruneToFive(), std::size_t{kCount + 2 - 50});
  EXPECT_EQ(Left().size(), kept.size() + 50);
  fork.Kill(ctx_);
  Snapshot::Create(ctx_, "fork", {.name = "of-fork"}, client_);
  EXPECT_EQ(BlocksOf("of-fork", 50), "~" + BlocksOf("s049", 50).substr(1));
  RemoveSandbox(ctx_, "fork", client_);
  Snapshot::Remove(ctx_, "of-fork", false, client_);
  EXPECT_EQ(PruneToFive(), 50U);
  EXPECT_EQ(Left(), kept);
  EXPECT_EQ(BlocksOf("new-4", kCount), written_);
  ExpectAllVerified();
  ExpectAllBoot();
}

// The call fails when the guest writes to the overlay already.
TEST_F(LiveTest, AFailureAfterTheExchangeLosesNothing) {
  WriteDisk("a", '1', 0);
  Live("first");
  WriteDisk("a", '2', 1);
  auto [ctx, cancel] = ctx_.WithCancel();
  const auto cancel_at_once = [cancel = cancel](const Progress&) { cancel(); };
  EXPECT_MSB_ERROR(
      Snapshot::Create(ctx.WithProgress(cancel_at_once), "a",
                       {.name = "failed", .record_integrity = true, .live = kCrash}, client_),
      ErrorKind::kCancelled, "cancelled");
  EXPECT_FALSE(fs::exists(home_ / "snapshots/failed"));
  WriteDisk("a", '3', 2);
  EXPECT_EQ(DisksOf("a").size(), 3U) << "the overlay, the former upper and the first snapshot";
  // Only the sandbox has the former upper.
  const auto whole = Live("whole");
  EXPECT_EQ(whole.Format(), "raw");
  EXPECT_EQ(BlocksOf("whole", 3), "123");
  WriteDisk("a", '4', 3);
  sandbox_->Stop(ctx_, {WithStopTimeout(seconds(60))});
  StartDetached("a");
  GetSandbox(ctx_, "a", client_).Kill(ctx_);
  const auto stopped = Snapshot::Create(ctx_, "a", {.name = "stopped"}, client_);
  EXPECT_EQ(stopped.Format(), "raw");
  EXPECT_EQ(BlocksOf("stopped", 4), "1234");
  StartDetached("a");
  WriteDisk("a", '5', 4);
  EXPECT_EQ(Live("last").Format(), "qcow2") << "the chain is short again";
  EXPECT_EQ(BlocksOf("last", 5), "12345");
  ExpectSnapshotsSealed();
}

// Another program has put a node on top of the overlay, such as that of a block job. Without the
// overlay, the guest's writes would be lost when the VM ends.
TEST_F(LiveTest, AnOverlayThatIsInUseIsNotClosed) {
  const base::UniqueFd dir = base::OpenDirectory(sandboxes_ / "a");
  const auto record = vmm::ReadRecord(dir.get(), sandboxes_ / "a");
  ASSERT_TRUE(record);
  vmm::QemuLiveDisk disk(ctx_, {dir.get(), "a"}, *record);
  vmm::BackingFile below{record->sandbox.upper->path.filename(), *record->sandbox.upper};
  for (const std::string overlay : {"lower.qcow2", "higher.qcow2"}) {
    vmm::MakeOverlay(dir.get(), overlay, 64 << 20, below);
    disk.SwitchTo(ctx_, overlay, kCrash, [](std::string) {});
    below = {overlay, {sandboxes_ / "a" / overlay, DiskFormat::kQcow2, {}}};
  }
  EXPECT_TRUE(disk.WritesTo(ctx_, "higher.qcow2"));
  EXPECT_FALSE(disk.WritesTo(ctx_, "lower.qcow2"));
  EXPECT_MSB_ERROR(disk.Close(ctx_, "lower.qcow2"), ErrorKind::kUnsupportedOperation, "sandbox 'a'",
                   "lower.qcow2", "stop the sandbox");
  EXPECT_NO_THROW(disk.Close(ctx_, "absent.qcow2"));
}

TEST_F(LiveTest, WhatWillBeRefusedIsRefusedBeforeTheExchange) {
  Live("first");
  const auto disks = DisksOf("a");
  EXPECT_MSB_ERROR(Live("first"), ErrorKind::kSnapshotAlreadyExists, "/first exists", "remove it");
  EXPECT_MSB_ERROR(
      Snapshot::Create(
          ctx_, "a", {.name = "label", .labels = {{"msb.consistency", "stopped"}}, .live = kCrash},
          client_),
      ErrorKind::kInvalidArgument, "label 'msb.consistency' is reserved", "choose another name");
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "a", {.name = "off"}, client_),
                   ErrorKind::kSnapshotSandboxRunning, "sandbox 'a' is running",
                   "stop it first, or, on the qemu backend, set SnapshotCreateOptions::live");
  EXPECT_EQ(DisksOf("a"), disks);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
}

TEST_F(LiveTest, ARawDiskAndASandboxWithoutAVmAreRefused) {
  Config config = SmallConfig();
  config.upper_format = DiskFormat::kRaw;
  Client raw(config);
  Sandbox box = CreateSandbox(ctx_, "raw", {WithImage(image_)}, raw);
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "raw", {.name = "s", .live = kCrash}, raw),
                   ErrorKind::kUnsupportedOperation, "the disk of sandbox 'raw' is raw",
                   "stop the sandbox first");
  box.Kill(ctx_);
  EXPECT_EQ(Snapshot::Create(ctx_, "raw", {.name = "s", .live = kCrash}, raw).Consistency(),
            "stopped");
  Client local({.home = dir_ / "local", .backend = "local", .upper_format = DiskFormat::kQcow2});
  Sandbox plain = CreateSandbox(ctx_, "plain", {WithImage(image_)}, local);
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "plain", {.name = "s", .live = kCrash}, local),
                   ErrorKind::kUnsupportedOperation, "the local backend runs no VM",
                   "sandbox 'plain'", "stop it first");
  plain.Close();
}

// The firmware has no guest agent.
TEST_F(LiveTest, WithoutAnAgentItIsOnlyCrashConsistent) {
  WriteDisk("a", '1', 0);
  EXPECT_MSB_ERROR(
      Snapshot::Create(ctx_, "a", {.name = "s", .live = LiveSnapshot::kFilesystemConsistent},
                       client_),
      ErrorKind::kUnsupportedOperation, "cannot freeze the file systems of sandbox 'a'",
      "the guest agent", "did not answer", "install qemu-guest-agent", "LiveSnapshot::kAuto");
  EXPECT_FALSE(fs::exists(home_ / "snapshots/s"));
  EXPECT_EQ(DisksOf("a").size(), 1U) << "the upper";
  const auto made =
      Snapshot::Create(ctx_, "a", {.name = "s", .live = LiveSnapshot::kAuto}, client_);
  EXPECT_EQ(made.Consistency(), "crash-consistent");
  EXPECT_EQ(BlocksOf("s", 1), "1");
  EXPECT_THAT(log_, HasSubstr("the snapshot of sandbox 'a' is only crash-consistent"));
  EXPECT_THAT(log_, HasSubstr("did not answer within"));
}

// QEMU serves one program at a time. Here, another program connects before the exchange, after the
// guest has turned out to have no agent.
TEST_F(LiveTest, AProgramThatTakesTheControlSocketIsNotWaitedFor) {
  const base::UniqueFd dir = base::OpenDirectory(sandboxes_ / "a");
  auto record = vmm::ReadRecord(dir.get(), sandboxes_ / "a");
  ASSERT_TRUE(record);
  const base::Home home({.home = home_});
  vmm::QemuLiveDisk disk(ctx_, {dir.get(), "a"}, *record);
  std::optional<vmm::QmpClient> other;
  const auto warn = [&](const std::string& message) {
    log_ += message + "\n";
    if (!other) other.emplace(ctx_, base::TryConnectAt(ctx_, dir.get(), vmm::kQmpSocketFile));
  };
  vmm::LiveSealing sealing(
      {dir.get(), sandboxes_ / "a", *record, home}, disk, [] {}, warn);
  EXPECT_MSB_ERROR(sealing.Switch(ctx_, LiveSnapshot::kAuto), ErrorKind::kIO, "sandbox 'a'",
                   "did not accept a connection to qmp.sock within 2 s", "another program uses it",
                   "disconnect that program");
  EXPECT_THAT(log_, HasSubstr("did not accept a connection to qmp.sock within 2 s"));
  EXPECT_TRUE(record->live) << "the next operation undoes it";
  other.reset();
  sealing.Resume(ctx_, {});
  EXPECT_FALSE(record->live);
  EXPECT_EQ(DisksOf("a").size(), 1U) << "the upper";
}

}  // namespace
}  // namespace msb::test
