// SPDX-License-Identifier: Apache-2.0
//
// Tests that Remove, Prune and Create keep every snapshot that a disk needs, even if the index
// lacks the dependent, or if the dependent appears while the call waits.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>
#include <thread>

#include "src/base/sqlite.h"
#include "src/base/staging.h"
#include "tests/support/sandbox_disk.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;

// A qcow2 sandbox "w" with the snapshot "a", which backs its disk.
class DependentsTest : public ::testing::Test {
 protected:
  DependentsTest() {
    MakeSparseFile(dir_ / "base.img", 1 << 20, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "w", {WithImage(dir_ / "base.img")}, client_).Close();
    CreateSandbox(ctx_, "other", {WithImage(dir_ / "base.img")}, client_).Close();
    WriteAsGuest("w", 0x11, 1024, client_);
    Snapshot::Create(ctx_, "w", {.name = "a"}, client_);
  }

  Client NewClient() const {
    return Client({.home = dir_ / "home",
                   .backend = "local",
                   .upper_format = DiskFormat::kQcow2,
                   .log = [](std::string_view) {}});
  }

  // Creates a snapshot of "w" while another process has the index locked, so it gets no row.
  void CreateWithoutRow(const std::string& name) {
    base::Database database(dir_ / "home/db/snapshots.db", base::Database::Mode::kReadWrite);
    const base::Transaction transaction(database);
    Snapshot::Create(ctx_.WithTimeout(std::chrono::milliseconds(500)), "w", {.name = name},
                     client_);
  }

  base::LockedDirectory Lock(const std::string& snapshot, base::LockMode mode) const {
    return base::LockedDirectory::Open(ctx_, snapshots_, snapshot, mode);
  }

  // Waits until this process has another descriptor of the snapshot's directory, or has ended.
  void AwaitUse(const std::string& snapshot, const std::atomic<bool>& ended) const {
    const auto count = [&] {
      int descriptors = 0;
      for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
        std::error_code error;
        if (fs::read_symlink(entry.path(), error) == snapshots_ / snapshot) ++descriptors;
      }
      return descriptors;
    };
    while (!ended && count() < 2) std::this_thread::yield();
  }

  // Calls Remove of "a" while another call has the snapshot locked, and meanwhile once Remove waits
  // for it. Expects Remove to find the sandbox "late", which meanwhile creates.
  void ExpectKept(const std::function<void()>& meanwhile) {
    RemoveSandbox(ctx_, "w", client_);
    std::atomic<bool> ended = false;
    std::jthread remove;
    {
      const base::LockedDirectory lock = Lock("a", base::LockMode::kShared);
      remove = std::jthread([&] {
        Client client = NewClient();
        EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, "a", false, client),
                         ErrorKind::kSnapshotHasChildren, "a (sha256:", "or use force");
        ended = true;
      });
      AwaitUse("a", ended);
      meanwhile();
    }
    remove.join();
    EXPECT_TRUE(fs::exists(snapshots_ / "a"));
  }

  std::string Content(const std::string& snapshot) {
    Snapshot::Flatten(ctx_, snapshot, dir_ / "flat", {}, client_);
    return ReadFile(dir_ / "flat");
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path snapshots_ = dir_ / "home/snapshots";
  Client client_ = NewClient();
};

TEST_F(DependentsTest, RemoveKeepsTheParentOfASnapshotThatTheIndexLacks) {
  CreateWithoutRow("child");
  RemoveSandbox(ctx_, "w", client_);
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "child", client_), ErrorKind::kSnapshotNotFound, "child");
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, "a", false, client_), ErrorKind::kSnapshotHasChildren,
                   "a (sha256:", "is the parent of child (", "remove these first, or use force");
  EXPECT_NO_THROW(Content("child"));
  EXPECT_EQ(Snapshot::Get(ctx_, "child", client_).Name(), "child");
}

TEST_F(DependentsTest, PruneKeepsTheParentOfASnapshotThatTheIndexLacks) {
  CreateWithoutRow("child");
  RemoveSandbox(ctx_, "w", client_);
  for (const bool dry_run : {true, false}) {
    EXPECT_THAT(Snapshot::Prune(ctx_, {.keep_last = 0, .dry_run = dry_run}, client_), IsEmpty());
  }
  EXPECT_NO_THROW(Content("child"));
}

TEST_F(DependentsTest, RemoveSeesASandboxThatIsForkedWhileItWaits) {
  ExpectKept([&] { CreateSandbox(ctx_, "late", {WithSnapshot("a")}, client_).Close(); });
}

TEST_F(DependentsTest, RemoveSeesASandboxThatIsRestoredWhileItWaits) {
  ExpectKept([&] { Snapshot::Restore(ctx_, "other", "a", client_); });
}

TEST_F(DependentsTest, RemoveSeesAChildThatIsCreatedWhileItWaits) {
  const std::string content = Content("a");
  ExpectKept([&] {
    Snapshot::Restore(ctx_, "other", "a", client_);
    Snapshot::Create(ctx_, "other", {.name = "child"}, client_);
    RemoveSandbox(ctx_, "other", client_);
  });
  EXPECT_EQ(Snapshot::Open(ctx_, "child", client_).Format(), "qcow2");
  EXPECT_TRUE(Content("child") == content);
}

TEST_F(DependentsTest, CreateWaitsForACallThatRemovesTheParent) {
  const std::string content = Content("a");
  std::atomic<bool> ended = false;
  base::LockedDirectory removed = Lock("a", base::LockMode::kExclusive);
  std::jthread create([&] {
    Client client = NewClient();
    EXPECT_NO_THROW(Snapshot::Create(ctx_, "w", {.name = "child"}, client));
    ended = true;
  });
  AwaitUse("a", ended);
  removed.Hide();
  removed.Delete(ctx_);
  removed = base::LockedDirectory();
  create.join();
  // A complete disk, since its parent is gone.
  EXPECT_EQ(Snapshot::Open(ctx_, "child", client_).Format(), "raw");
  EXPECT_TRUE(Content("child") == content);
}

}  // namespace
}  // namespace msb::test
