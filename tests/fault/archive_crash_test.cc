// Crashes and failing disks at every system call of Export and Import in turn.

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cerrno>

#include "tests/support/support.h"
#include "tests/support/syscall_tracer.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr int kDone = 0;
constexpr int kRefusedIO = 10;
constexpr int kRefusedOtherwise = 11;

// The calls that change what is on a disk. Not write(2), which sanitizers use for themselves.
const std::set<long> kWriting = {SYS_pwrite64, SYS_fsync,     SYS_fdatasync, SYS_ftruncate,
                                 SYS_mkdirat,  SYS_renameat2, SYS_renameat,  SYS_rename,
                                 SYS_link,     SYS_linkat};

class ArchiveCrashTest : public ::testing::Test {
 protected:
  ArchiveCrashTest() {
    Client client = LocalClient(dir_ / "home");
    // One region, so that its worker is the thread that the tracer follows.
    MakeSparseFile(dir_ / "base.img", 300'000, {{0, Noise(70'000, 1)}, {200'000, Noise(5'000, 2)}});
    MakeStoppedSandbox(client, "baseline", dir_ / "base.img");
    parent_ =
        Snapshot::Create(ctx_, "baseline", {.name = "parent", .record_integrity = true}, client)
            .Digest();
    CreateSandbox(ctx_, "worker", {WithSnapshot("parent")}, client).Close();
    head_ = Snapshot::Create(ctx_, "worker", {.name = "head", .record_integrity = true}, client)
                .Digest();
    Export(archive_);
  }

  void Export(const fs::path& out) {
    Client client = LocalClient(dir_ / "home");
    Snapshot::Export(ctx_, "head", out, {.with_parents = true, .with_image = true, .threads = 1},
                     client);
  }

  // As a child does it; its exit status says how it ended.
  static int Report(const std::function<void()>& call) {
    try {
      call();
      return kDone;
    } catch (const Error& e) {
      return e.kind() == ErrorKind::kIO ? kRefusedIO : kRefusedOtherwise;
    }
  }

  int ImportInChild() {
    return Report([&] {
      Client client = LocalClient(target_, &log_);
      Snapshot::Import(ctx_, archive_, "", client);
    });
  }

  // Whatever is there is whole, and a child never without its parent. Returns how many there are.
  std::size_t ExpectWhole(const std::string& when) {
    Client client = LocalClient(target_, &log_);
    std::set<std::string> digests;
    for (const SnapshotArtifact& artifact : Snapshot::ListDir(ctx_, "", client)) {
      EXPECT_EQ(artifact.Verify(ctx_).upper.kind, "verified") << when;
      digests.insert(artifact.Digest());
    }
    EXPECT_LE(digests.count(head_), digests.count(parent_)) << when;
    return digests.size();
  }

  // After the next import there is nothing but what it brings.
  void ExpectNextImportWorks(const std::string& when) {
    Client client = LocalClient(target_, &log_);
    for (const SnapshotArtifact& artifact : Snapshot::ListDir(ctx_, "", client)) {
      Snapshot::Remove(ctx_, artifact.Path(), true, client);
    }
    EXPECT_EQ(Snapshot::Import(ctx_, archive_, "", client).Digest(), head_) << when;
    std::size_t entries = 0;
    for (const auto& entry : fs::directory_iterator(target_ / "snapshots")) {
      EXPECT_FALSE(entry.path().filename().native().starts_with('.')) << when << entry;
      ++entries;
    }
    EXPECT_EQ(entries, 2U) << when;
    CreateSandbox(ctx_, "from-image",
                  {WithImage(Snapshot::Get(ctx_, head_, client).Open(ctx_).ImageManifestDigest())},
                  client)
        .Close();
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path archive_ = dir_ / "archive.tar.zst";
  const fs::path target_ = dir_ / "target";
  std::vector<std::string> log_;
  std::string parent_;
  std::string head_;
};

TEST_F(ArchiveCrashTest, ImportLeavesWholeSnapshotsOrNone) {
  std::set<std::size_t> seen;
  for (int n = 0;; ++n) {
    fs::remove_all(target_);
    const TracedRun run = KillAtSyscall(n, [&] { return ImportInChild(); });
    const std::string when = "killed at call " + std::to_string(n);
    seen.insert(ExpectWhole(when));
    ExpectNextImportWorks(when);
    if (!run.interfered || HasFailure()) break;
  }
  EXPECT_TRUE(seen.contains(0));
  EXPECT_TRUE(seen.contains(2));
}

TEST_F(ArchiveCrashTest, ImportOntoAFailingDiskLeavesNothing) {
  int refused = 0;
  for (const int error : {EIO, ENOSPC}) {
    for (int n = 0;; ++n) {
      fs::remove_all(target_);
      const TracedRun run = FailSyscall(n, kWriting, error, [&] { return ImportInChild(); });
      const std::string when =
          "failed call " + std::to_string(n) + ", number " + std::to_string(run.syscall);
      // The index is a cache: when only that fails, the snapshots are there all the same.
      if (run.exit_status != kDone) {
        EXPECT_EQ(run.exit_status, kRefusedIO) << when;
        EXPECT_FALSE(fs::exists(target_ / "snapshots")) << when;
        EXPECT_FALSE(fs::exists(target_ / "cache")) << when;
        ++refused;
      } else {
        EXPECT_EQ(ExpectWhole(when), 2U) << when;
      }
      ExpectNextImportWorks(when);
      if (!run.interfered || HasFailure()) break;
    }
  }
  EXPECT_GT(refused, 10);
}

TEST_F(ArchiveCrashTest, ExportKeepsTheOldArchiveOrHasTheNew) {
  const fs::path out = dir_ / "out";
  const std::string whole = ReadFile(archive_);
  std::set<bool> seen;
  for (int n = 0;; ++n) {
    fs::remove_all(out);
    fs::create_directory(out);
    WriteFile(out / "x", "old");
    const TracedRun run = KillAtSyscall(n, [&] { return Report([&] { Export(out / "x"); }); });
    const std::string found = ReadFile(out / "x");
    EXPECT_EQ(found == "old" || found == whole, true) << "killed at call " << n;
    seen.insert(found == whole);
    Export(out / "x");
    EXPECT_EQ(ListTree(out).size(), 1U) << "killed at call " << n;
    if (!run.interfered || HasFailure()) break;
  }
  EXPECT_EQ(seen.size(), 2U);
}

TEST_F(ArchiveCrashTest, ExportOntoAFailingDiskKeepsTheOldArchive) {
  const fs::path out = dir_ / "out";
  fs::create_directory(out);
  int refused = 0;
  for (int n = 0;; ++n) {
    WriteFile(out / "x", "old");
    const TracedRun run =
        FailSyscall(n, kWriting, ENOSPC, [&] { return Report([&] { Export(out / "x"); }); });
    if (run.exit_status != kDone) {
      EXPECT_EQ(run.exit_status, kRefusedIO) << "call " << n << ", number " << run.syscall;
      EXPECT_EQ(ReadFile(out / "x"), "old") << "call " << n << ", number " << run.syscall;
      ++refused;
    }
    EXPECT_EQ(ListTree(out).size(), 1U) << "call " << n << ", number " << run.syscall;
    if (!run.interfered || HasFailure()) break;
  }
  EXPECT_GT(refused, 3);
}

}  // namespace
}  // namespace msb::test
