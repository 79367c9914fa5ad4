// Crashes and failing disks, at every system call in turn.

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

// A call that changes a home, as a child makes it; its exit status says how it ended.
int Report(const std::function<void()>& call) {
  try {
    call();
    return kDone;
  } catch (const Error& e) {
    return e.kind() == ErrorKind::kIO ? kRefusedIO : kRefusedOtherwise;
  }
}

class CrashTest : public ::testing::Test {
 protected:
  CrashTest() {
    Client client = LocalClient(home_);
    // One region, so that the copy needs no second thread for the tracer to follow.
    MakeSparseFile(dir_ / "base.img", 300'000, {{0, Noise(70'000, 1)}, {200'000, Noise(5'000, 2)}});
    MakeStoppedSandbox(client, "baseline", dir_ / "base.img");
    Snapshot::Create(ctx_, "baseline", {.name = "old", .record_integrity = true}, client);
    old_digest_ = Snapshot::Open(ctx_, "old", client).Digest();
  }

  int Child(const std::function<void(Client&)>& call) {
    return Report([&] {
      Client client = LocalClient(home_, &log_);
      call(client);
    });
  }

  // Every artifact under the snapshots directory is whole, nothing but artifacts and hidden stages
  // is there, and after the next calls no stage is left. The index is right after a Reindex.
  void ExpectConsistent(const std::string& when) {
    Client client = LocalClient(home_, &log_);
    int artifacts = 0;
    for (const auto& entry : fs::directory_iterator(home_ / "snapshots")) {
      const std::string name = entry.path().filename();
      if (name.starts_with(".msb-stage-")) continue;
      ++artifacts;
      EXPECT_NO_THROW(
          EXPECT_EQ(Snapshot::Open(ctx_, name, client).Verify(ctx_).upper.kind, "verified"))
          << when << ": " << name;
    }
    Snapshot::Create(ctx_, "baseline", {.name = "next", .record_integrity = true}, client);
    Snapshot::Remove(ctx_, "next", false, client);
    int entries = 0;
    for (const auto& entry : fs::directory_iterator(home_ / "snapshots")) {
      EXPECT_FALSE(entry.path().filename().native().starts_with('.')) << when << entry;
      ++entries;
    }
    EXPECT_EQ(entries, artifacts) << when;
    EXPECT_EQ(Snapshot::Reindex(ctx_, "", client), static_cast<unsigned>(artifacts)) << when;
    EXPECT_EQ(Snapshot::List(ctx_, client).size(), static_cast<std::size_t>(artifacts)) << when;
  }

  std::string DigestOf(const std::string& name) {
    Client client = LocalClient(home_, &log_);
    try {
      return Snapshot::Open(ctx_, name, client).Digest();
    } catch (const Error& e) {
      return e.kind() == ErrorKind::kSnapshotNotFound ? "absent" : e.what();
    }
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = dir_ / "home";
  std::vector<std::string> log_;
  std::string old_digest_;
};

TEST_F(CrashTest, CreateIsThereWholeOrNotAtAll) {
  bool seen_absent = false;
  bool seen_whole = false;
  for (int n = 0;; ++n) {
    const TracedRun run = KillAtSyscall(n, [&] {
      return Child([&](Client& client) {
        Snapshot::Create(ctx_, "baseline", {.name = "new", .record_integrity = true}, client);
      });
    });
    const std::string when = "killed at call " + std::to_string(n);
    (DigestOf("new") == "absent" ? seen_absent : seen_whole) = true;
    ExpectConsistent(when);
    Client client = LocalClient(home_);
    if (DigestOf("new") != "absent") Snapshot::Remove(ctx_, "new", true, client);
    if (!run.interfered || HasFailure()) break;
  }
  EXPECT_TRUE(seen_absent);
  EXPECT_TRUE(seen_whole);
}

TEST_F(CrashTest, ForceKeepsTheOldOrHasTheNew) {
  for (int n = 0;; ++n) {
    const std::string before = DigestOf("old");
    const TracedRun run = KillAtSyscall(n, [&] {
      return Child([&](Client& client) {
        Snapshot::Create(ctx_, "baseline", {.name = "old", .force = true, .record_integrity = true},
                         client);
      });
    });
    EXPECT_EQ(DigestOf("old").substr(0, 7), "sha256:") << n;
    ExpectConsistent("killed at call " + std::to_string(n));
    if (!run.interfered) {
      EXPECT_NE(DigestOf("old"), before);
      break;
    }
    if (HasFailure()) break;
  }
}

TEST_F(CrashTest, RemoveTakesAllOrNothing) {
  for (int n = 0;; ++n) {
    {
      Client client = LocalClient(home_);
      if (DigestOf("victim") == "absent") {
        Snapshot::Create(ctx_, "baseline", {.name = "victim", .record_integrity = true}, client);
      }
    }
    const TracedRun run = KillAtSyscall(n, [&] {
      return Child([&](Client& client) { Snapshot::Remove(ctx_, "victim", false, client); });
    });
    ExpectConsistent("killed at call " + std::to_string(n));
    if (!run.interfered) {
      EXPECT_EQ(DigestOf("victim"), "absent");
      break;
    }
    if (HasFailure()) break;
  }
}

TEST_F(CrashTest, ASandboxIsThereWholeOrNotAtAll) {
  for (int n = 0;; ++n) {
    const TracedRun run = KillAtSyscall(n, [&] {
      return Child([&](Client& client) {
        CreateSandbox(ctx_, "worker", {WithSnapshot("old")}, client).Close();
      });
    });
    Client client = LocalClient(home_, &log_);
    const auto sandboxes = ListSandboxes(ctx_, client);
    if (sandboxes.size() == 2) {
      const auto worker = GetSandbox(ctx_, "worker", client);
      // Its owner was killed, or it was stopped.
      EXPECT_NE(worker.Status(), SandboxStatus::kRunning) << n;
      EXPECT_EQ(ReadFile(worker.Upper().path), ReadFile(home_ / "snapshots/old/upper.ext4"));
      StartSandbox(ctx_, "worker", client).Close();
      RemoveSandbox(ctx_, "worker", client);
    } else {
      EXPECT_FALSE(fs::exists(home_ / "sandboxes/worker")) << n;
    }
    CreateSandbox(ctx_, "next", {WithSnapshot("old")}, client).Close();
    RemoveSandbox(ctx_, "next", client);
    EXPECT_EQ(ListTree(home_ / "sandboxes").size(), 3U) << n;  // baseline and its two files.
    if (!run.interfered || HasFailure()) break;
  }
}

TEST_F(CrashTest, StoppingKeepsTheRecordReadable) {
  for (int n = 0;; ++n) {
    Client client = LocalClient(home_);
    CreateSandbox(ctx_, "worker", {WithSnapshot("old"), WithDetached()}, client).Close();
    const TracedRun run = KillAtSyscall(
        n, [&] { return Child([&](Client& own) { GetSandbox(ctx_, "worker", own).Stop(ctx_); }); });
    GetSandbox(ctx_, "worker", client).Stop(ctx_);
    EXPECT_EQ(GetSandbox(ctx_, "worker", client).Status(), SandboxStatus::kStopped);
    RemoveSandbox(ctx_, "worker", client);
    if (!run.interfered || HasFailure()) break;
  }
}

// A seal takes a sandbox's disk over: whenever that is cut off, the sandbox has all of its data,
// can be snapshotted under the same name, and writes to no file that a snapshot holds.
TEST_F(CrashTest, ASealHappensOrNot) {
  const auto qcow2_client = [&] {
    return Client({.home = home_, .backend = "local", .upper_format = DiskFormat::kQcow2});
  };
  bool seen_absent = false;
  bool seen_whole = false;
  for (int n = 0;; ++n) {
    {
      Client client = qcow2_client();
      CreateSandbox(ctx_, "cow", {WithSnapshot("old"), WithReplace()}, client).Close();
    }
    const TracedRun run = KillAtSyscall(n, [&] {
      return Report([&] {
        Client client = qcow2_client();
        Snapshot::Create(ctx_, "cow", {.name = "sealed"}, client);
      });
    });
    Client client = qcow2_client();
    const std::string when = "killed at call " + std::to_string(n);
    const bool there = fs::exists(home_ / "snapshots/sealed");
    (there ? seen_whole : seen_absent) = true;
    ASSERT_NO_THROW(StartSandbox(ctx_, "cow", client).Close()) << when;
    const fs::path upper = GetSandbox(ctx_, "cow", client).Upper().path;
    EXPECT_EQ(fs::hard_link_count(upper), 1U) << when;
    EXPECT_NE(fs::status(upper).permissions() & fs::perms::owner_write, fs::perms::none) << when;
    const auto next = Snapshot::Create(ctx_, "cow", {.name = there ? "next" : "sealed"}, client);
    if (there) {
      EXPECT_EQ(next.Parent(), Snapshot::Open(ctx_, "sealed", client).Digest()) << when;
      EXPECT_EQ(Snapshot::Open(ctx_, "sealed", client).Parent(), old_digest_) << when;
      Snapshot::Remove(ctx_, "next", true, client);
    } else {
      EXPECT_EQ(next.Parent(), old_digest_) << when;
    }
    Snapshot::Remove(ctx_, "sealed", true, client);
    EXPECT_EQ(ListTree(home_ / "snapshots").size(), 3U) << when;  // old and its two files.
    if (!run.interfered || HasFailure()) break;
  }
  EXPECT_TRUE(seen_absent);
  EXPECT_TRUE(seen_whole);
}

// The calls that change what is on a disk. Not write(2), which sanitizers use for themselves.
const std::set<long> kWriting = {SYS_pwrite64, SYS_fsync,     SYS_fdatasync, SYS_ftruncate,
                                 SYS_mkdirat,  SYS_renameat2, SYS_renameat,  SYS_rename};

TEST_F(CrashTest, AFailingDiskIsReportedAndLeavesNothing) {
  int refused = 0;
  for (const int error : {EIO, ENOSPC}) {
    for (int n = 0;; ++n) {
      const TracedRun run = FailSyscall(n, kWriting, error, [&] {
        return Child([&](Client& client) {
          Snapshot::Create(ctx_, "baseline", {.name = "new", .record_integrity = true}, client);
        });
      });
      // The index is a cache: when only that fails, the snapshot is there all the same.
      const bool there = DigestOf("new") != "absent";
      if (run.exit_status == kDone) {
        EXPECT_TRUE(there) << n;
      } else {
        EXPECT_EQ(run.exit_status, kRefusedIO) << "call " << n << ", number " << run.syscall;
        EXPECT_FALSE(there) << "call " << n << ", number " << run.syscall;
        ++refused;
      }
      ExpectConsistent("failed call " + std::to_string(n));
      Client client = LocalClient(home_);
      if (there) Snapshot::Remove(ctx_, "new", true, client);
      if (!run.interfered || HasFailure()) break;
    }
  }
  EXPECT_GT(refused, 10);
}

}  // namespace
}  // namespace msb::test
