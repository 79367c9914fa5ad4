// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/live_seal.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/base/regular_file.h"
#include "src/base/throw.h"
#include "src/disk/disk_image.h"
#include "src/disk/overlay_edit.h"
#include "src/disk/qcow2_header.h"
#include "src/vmm/directory_disk.h"
#include "src/vmm/record_file.h"
#include "tests/support/call_interceptor.h"
#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;

const std::string kDigest = "sha256:" + std::string(64, 'd');
const std::string kBefore(8192, '1');  // The disk before the snapshot.
const std::string kAfter = std::string(4096, '2') + std::string(4096, '1');  // And afterwards.

// While a VmAction exists, the calls that this process makes are those of the VM.
class VmAction {
 public:
  VmAction() { syscall(SYS_getppid); }  // Nothing else calls getppid.
  VmAction(const VmAction&) = delete;
  VmAction& operator=(const VmAction&) = delete;
  ~VmAction() { syscall(SYS_getppid); }
};

// A VM whose guest writes as soon as it has an overlay. The file "vm" beside the directory of the
// sandbox has the name of the overlay, so that the VM outlives the process that it is tested in.
class FakeDisk : public LiveDisk {
 public:
  explicit FakeDisk(fs::path sandbox, bool has_ended = false)
      : sandbox_(std::move(sandbox)), has_ended_(has_ended) {}

  bool WritesTo(const Context& /*ctx*/, const std::string& overlay) override {
    return fs::exists(StateFile()) && test::ReadFile(StateFile()) == overlay;
  }
  std::string_view SwitchTo(const Context& /*ctx*/, const std::string& overlay,
                            LiveSnapshot /*level*/, const Warn& /*warn*/) override {
    const VmAction action;
    const base::UniqueFd file = Open(overlay);
    const auto header = disk::ReadQcow2Header(file.get(), overlay);
    test::WriteFile(sandbox_ / overlay,
                    test::Qcow2Sample(std::string(4096, '2'), header.backing_file));
    test::WriteFile(StateFile(), overlay);
    return "crash-consistent";
  }
  void Close(const Context& /*ctx*/, const std::string& /*overlay*/) override {}
  void SetBackingFile(const Context& /*ctx*/, const std::string& overlay,
                      const std::string& backing_file) override {
    if (has_ended_) base::Throw(ErrorKind::kIO, "the VM has ended");
    const VmAction action;
    disk::SetBackingFile(Open(overlay).get(), overlay, backing_file);
  }
  bool HasEnded() override { return has_ended_; }

 private:
  fs::path StateFile() const { return sandbox_.parent_path() / "vm"; }
  base::UniqueFd Open(const std::string& name) const {
    return base::OpenForUpdateAt(base::OpenDirectory(sandbox_).get(), name);
  }

  const fs::path sandbox_;
  const bool has_ended_;
};

struct LiveSealCase {
  bool has_links;
  bool publishes;
};

void PrintTo(const LiveSealCase& parameter, std::ostream* out) {
  *out << (parameter.has_links ? "links" : "no links")
       << (parameter.publishes ? ", publishes" : ", fails to publish");
}

// A sandbox whose VM runs, and a live snapshot of it.
class LiveSealTest : public ::testing::TestWithParam<LiveSealCase> {
 protected:
  // Makes the sandbox anew.
  void Reset() {
    fs::remove_all(place_.path() / "box");
    fs::remove_all(artifact_.parent_path());
    fs::remove(place_.path() / "vm");
    fs::create_directories(path_);
    fs::create_directories(artifact_.parent_path());
    test::WriteFile(path_ / "upper.qcow2", test::Qcow2Sample(kBefore));
    dir_ = base::OpenDirectory(path_);
    DirectoryRecord record;
    record.sandbox.name = "box";
    record.sandbox.image = Image{"base.img", "sha256:" + std::string(64, 'a')};
    record.sandbox.upper = Disk{path_ / "upper.qcow2", DiskFormat::kQcow2, "ext4"};
    SaveRecord(record, dir_.get(), path_);
  }

  DirectoryRecord Record() const { return ReadRecord(dir_.get(), path_).value(); }
  SealedSandbox Sealed(DirectoryRecord& record) const { return {dir_.get(), path_, record, home_}; }
  LiveSealing NewSealing(DirectoryRecord& record, LiveDisk& disk) {
    return {Sealed(record), disk, [this, &record] { SaveRecord(record, dir_.get(), path_); },
            [this](std::string message) { warnings_.push_back(std::move(message)); }};
  }

  bool IsPublished() const { return fs::exists(artifact_); }
  PublishedPredicate Published() const {
    return [this](const fs::path&, const std::string&) { return IsPublished(); };
  }

  // Makes a live snapshot, which is not published unless publishes is set.
  void MakeSnapshot(LiveDisk& disk, bool publishes) {
    DirectoryRecord record = Record();
    LiveSealing sealing = NewSealing(record, disk);
    EXPECT_EQ(sealing.Switch(Context::Background(), LiveSnapshot::kCrashConsistent),
              "crash-consistent");
    const Disk sealed = sealing.Link({.digest = kDigest, .artifact = artifact_.parent_path()});
    const fs::path staged = artifact_.parent_path() / "staged";
    {
      const VmAction action;  // The publisher is not under test.
      test::WriteFile(staged, test::ReadFile(sealed.path));
    }
    if (publishes) fs::rename(staged, artifact_);
    sealing.Finish(publishes);
  }

  // Makes the snapshot in another process, and kills that before its n-th call that may change
  // something, counted from 0. Returns false if it made fewer calls.
  bool KillAt(int n) {
    std::vector<long> calls = test::FileCalls();
    calls.push_back(SYS_getppid);
    bool is_vm = false;
    const auto decide = [&](const test::InterceptedCall& call) {
      if (call.number == SYS_getppid) is_vm = !is_vm;
      if (is_vm || call.number == SYS_getppid) return 0;
      if (!GetParam().has_links && call.number == SYS_linkat) return EPERM;
      return test::MayChange(call) && n-- == 0 ? test::kKillChild : 0;
    };
    const test::InterceptedRun run = test::RunIntercepted(calls, decide, [&](const auto& begin) {
      FakeDisk disk(path_);
      begin();
      MakeSnapshot(disk, GetParam().publishes);
      return warnings_.empty() ? std::string("made") : warnings_[0];
    });
    EXPECT_EQ(run.crash, "");
    EXPECT_TRUE(run.killed || run.report == "made") << run.report;
    return run.killed;
  }

  // Expects the sandbox to have one disk, with what its guest has written, and the snapshot to have
  // what was written before it.
  void ExpectNothingLost() {
    const DirectoryRecord record = Record();
    EXPECT_FALSE(record.live);
    Sweep(dir_.get(), path_, record.sandbox);
    std::vector<disk::ImageFile> files;
    const auto add = [&](const Disk& file) {
      files.push_back(
          {base::OpenRegularFile(file.path, ErrorKind::kIO), file.format, file.path.filename()});
    };
    add(*record.sandbox.upper);
    for (const BackingFile& file : record.sandbox.backing) add(file.disk);
    const auto image = disk::OpenImage(Context::Background(), std::move(files));
    std::string content(kBefore.size(), '\0');
    image->Read(std::as_writable_bytes(std::span(content)), 0);
    const bool is_switched = fs::exists(place_.path() / "vm");
    EXPECT_EQ(content, is_switched ? kAfter : kBefore);
    if (is_switched) {
      EXPECT_EQ(record.sandbox.upper->path.filename(), test::ReadFile(place_.path() / "vm"));
    }
    if (!IsPublished()) return;
    EXPECT_EQ(test::ReadFile(artifact_), test::Qcow2Sample(kBefore));
    EXPECT_EQ(record.sandbox.snapshot_digest, kDigest);
  }

  const test::TempDir place_;
  const fs::path path_ = place_.path() / "box";
  const fs::path artifact_ = place_.path() / "snapshots/s/upper.qcow2";
  const base::Home home_{{.home = place_.path() / "home"}};
  base::UniqueFd dir_;
  std::vector<std::string> warnings_;
};

INSTANTIATE_TEST_SUITE_P(Cases, LiveSealTest,
                         ::testing::Values(LiveSealCase{true, true}, LiveSealCase{true, false},
                                           LiveSealCase{false, true}, LiveSealCase{false, false}));

TEST_P(LiveSealTest, ASnapshotLosesNothing) {
  Reset();
  EXPECT_FALSE(KillAt(-1));
  ExpectNothingLost();
  EXPECT_EQ(IsPublished(), GetParam().publishes);
  const DirectoryRecord record = Record();
  ASSERT_EQ(record.sandbox.backing.size(), 1U);
  EXPECT_EQ(record.sandbox.backing[0].name,
            GetParam().publishes ? "sha256_" + std::string(64, 'd') + ".qcow2" : "upper.qcow2");
}

// The VM ends with the process. The next operation on the sandbox resolves the switch.
TEST_P(LiveSealTest, ACrashOfTheProcessAndOfTheVmLosesNothing) {
  bool seen_renamed = false;
  for (int n = 0;; ++n) {
    SCOPED_TRACE(fmt::format("killed before step {}", n));
    Reset();
    const bool killed = KillAt(n);
    DirectoryRecord record = Record();
    if (const auto files = ResolveSwitch(Sealed(record), Published())) {
      seen_renamed = seen_renamed || !files->renamed.empty();
      ChangeFiles(Sealed(record), *files);
      SaveRecord(record, dir_.get(), path_);
    }
    ExpectNothingLost();
    if (HasFailure()) return;
    if (killed) continue;
    EXPECT_GT(n, 5);
    break;
  }
  EXPECT_EQ(seen_renamed, !GetParam().has_links);
}

// The files were changed, but the record was not saved.
TEST_P(LiveSealTest, ACrashOfTheRecoveryLosesNothing) {
  for (int n = 0;; ++n) {
    SCOPED_TRACE(fmt::format("killed before step {}", n));
    Reset();
    const bool killed = KillAt(n);
    for (int attempt = 0; attempt < 2; ++attempt) {
      DirectoryRecord record = Record();
      const auto files = ResolveSwitch(Sealed(record), Published());
      if (!files) continue;
      ChangeFiles(Sealed(record), *files);
      if (attempt == 1) SaveRecord(record, dir_.get(), path_);
    }
    ExpectNothingLost();
    if (!killed || HasFailure()) return;
  }
}

// The VM continues to run, or ends before the next operation names the overlay's backing file.
TEST_P(LiveSealTest, ACrashOfTheProcessAloneLosesNothing) {
  for (const bool has_ended : {false, true}) {
    for (int n = 0;; ++n) {
      SCOPED_TRACE(fmt::format("killed before step {}, VM has ended: {}", n, has_ended));
      Reset();
      const bool killed = KillAt(n);
      DirectoryRecord record = Record();
      FakeDisk disk(path_, has_ended);
      NewSealing(record, disk).Resume(Context::Background(), Published());
      EXPECT_THAT(warnings_, IsEmpty());
      ExpectNothingLost();
      if (HasFailure()) return;
      if (!killed) break;
    }
  }
}

}  // namespace
}  // namespace msb::vmm
