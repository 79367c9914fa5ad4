// SPDX-License-Identifier: Apache-2.0
//
// Tests how long calls wait for locks of other calls and when they report this, and that calls end
// at their deadline while they search a disk without data.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <latch>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "src/base/file.h"
#include "src/base/lock.h"
#include "src/base/sqlite.h"
#include "src/base/staging.h"
#include "tests/support/missing_calls.h"
#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DeadlineTest : public ::testing::Test {
 protected:
  DeadlineTest() {
    MakeStoppedSandbox(client_, "baseline", dir_ / "base.img");
    Snapshot::Create(ctx_, "baseline", {.name = "first"}, client_);
  }

  // Locks the index like another process that writes to it.
  void LockIndex() {
    database_.emplace(dir_ / "home" / "db" / "snapshots.db", base::Database::Mode::kReadWrite);
    transaction_.emplace(*database_);
  }
  void UnlockIndex() {
    transaction_.reset();
    database_.reset();
  }

  // Expects call to return before another call that began earlier and waits for the locked index
  // without a deadline.
  void ExpectEndsFirst(const std::function<void()>& call) {
    std::atomic<bool> other_ended = false;
    std::latch begun(1);
    const std::jthread other([&] {
      Client client = LocalClient(dir_ / "home");
      begun.count_down();
      EXPECT_MSB_ERROR(Snapshot::Reindex(other_.first, "", client), ErrorKind::kCancelled,
                       "cancelled");
      other_ended = true;
    });
    begun.wait();
    call();
    EXPECT_FALSE(other_ended);
    other_.second();
  }

  const Context ctx_ = Context::Background();
  const std::pair<Context, CancelFunction> other_ = ctx_.WithCancel();
  TempDir dir_;
  std::vector<std::string> log_;
  Client client_ = LocalClient(dir_ / "home", &log_);
  std::optional<base::Database> database_;
  std::optional<base::Transaction> transaction_;
};

// Only one process at a time may create the index, or set a damaged one aside.
TEST_F(DeadlineTest, FirstCallOfAClientWaitsForAProcessThatOpensTheIndex) {
  base::UniqueFd dir = base::OpenDirectory(dir_ / "home" / "db");
  base::Lock(ctx_, dir.get());
  std::optional<base::LockedFd> other(std::move(dir));
  Client client = LocalClient(dir_ / "home", &log_);
  EXPECT_MSB_ERROR(Snapshot::List(ctx_.WithTimeout(milliseconds(200)), client),
                   ErrorKind::kCancelled, "deadline exceeded");
  other.reset();
  EXPECT_EQ(Snapshot::List(ctx_, client).size(), 1U);
}

TEST_F(DeadlineTest, CreateWaitsForALockedIndexNoLongerThanItsDeadline) {
  LockIndex();
  ExpectEndsFirst(
      [&] { Snapshot::Create(ctx_.WithTimeout(seconds(1)), "baseline", {.name = "s"}, client_); });
  EXPECT_THAT(log_, ElementsAre(AllOf(
                        HasSubstr("snapshots/s is complete, but could not be added to the index"),
                        HasSubstr("locked"), HasSubstr("Reindex"))));
  UnlockIndex();
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "s", client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot 's' in the index", "call Reindex");
  std::ignore = Snapshot::Open(ctx_, "s", client_);
  EXPECT_EQ(Snapshot::Get(ctx_, "s", client_).Name(), "s");
}

TEST_F(DeadlineTest, ImportWaitsForALockedIndexNoLongerThanItsDeadline) {
  Snapshot::Export(ctx_, "first", dir_ / "first.tar.zst", {}, client_);
  LockIndex();
  ExpectEndsFirst([&] {
    Snapshot::Import(ctx_.WithTimeout(seconds(1)), dir_ / "first.tar.zst", dir_ / "imported",
                     client_);
  });
  EXPECT_EQ(Snapshot::ListDir(ctx_, dir_ / "imported", client_).size(), 1U);
}

TEST_F(DeadlineTest, ReindexEndsAtItsDeadline) {
  LockIndex();
  EXPECT_MSB_ERROR(Snapshot::Reindex(ctx_.WithTimeout(milliseconds(100)), "", client_),
                   ErrorKind::kCancelled, "deadline exceeded");
}

// Another program has opened the index exclusively.
TEST_F(DeadlineTest, ListAndGetEndAtTheirDeadline) {
  const std::string path = dir_ / "home" / "db" / "snapshots.db";
  client_ = LocalClient(dir_ / "home");  // A client without a connection.
  base::Database database(path, base::Database::Mode::kReadWrite);
  database.Execute("PRAGMA journal_mode = DELETE");
  database.Execute("BEGIN EXCLUSIVE");
  const Context limited = ctx_.WithTimeout(milliseconds(100));
  EXPECT_MSB_ERROR(Snapshot::List(limited, client_), ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_MSB_ERROR(Snapshot::Get(limited, "first", client_), ErrorKind::kCancelled,
                   "deadline exceeded");
  database.Execute("ROLLBACK");
  EXPECT_EQ(Snapshot::List(ctx_, client_).size(), 1U);
}

TEST_F(DeadlineTest, ACancelledCallThatWaitsForTheIndexEnds) {
  LockIndex();
  const auto [ctx, cancel] = ctx_.WithCancel();
  const std::jthread canceller([&end = cancel] { end(); });
  EXPECT_MSB_ERROR(Snapshot::Reindex(ctx, "", client_), ErrorKind::kCancelled, "cancelled");
}

TEST_F(DeadlineTest, ALockedSandboxIsAwaitedUntilTheDeadline) {
  const base::UniqueFd sandbox = base::OpenDirectory(dir_ / "home" / "sandboxes" / "baseline");
  ASSERT_TRUE(base::TryLock(sandbox.get()));
  const Context limited = ctx_.WithTimeout(milliseconds(100));
  EXPECT_MSB_ERROR(StartSandbox(limited, "baseline", client_), ErrorKind::kCancelled,
                   "deadline exceeded");
}

// A large disk without data, on a file system that does not report holes. A call that ignores its
// deadline reads all of it: 32 million blocks, or 4 million tables.
class LargeDiskTest : public ::testing::Test {
 protected:
  using Call = std::function<void(const Context&, Client&)>;
  // No more than this can be read before the deadline, because each read is intercepted.
  static constexpr int kMostReads = 100'000;

  // Expects call to end at its deadline, before it has read much of the disk, whether or not it
  // first computes the total of its progress.
  void ExpectEnds(const Call& call) const {
    for (const bool reports : {false, true}) {
      const auto is_late = [reads = 0](const InterceptedCall&) mutable {
        return ++reads > kMostReads;
      };
      const MissingCall late{"pread64", SYS_pread64, EIO, is_late};
      EXPECT_EQ(RunWithout({NoHoles(EINVAL), late}, [&] { return EndOf(call, reports); }),
                "deadline exceeded")
          << (reports ? "with progress" : "without progress");
    }
  }

  // Returns the message of the error with which the call ended.
  std::string EndOf(const Call& call, bool reports) const {
    Client client(config_);
    const Context limited = ctx_.WithTimeout(milliseconds(100));
    try {
      call(reports ? limited.WithProgress([](const Progress&) {}) : limited, client);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  // Makes a stopped sandbox, and returns the path of its upper.
  std::filesystem::path MakeUpper(DiskFormat format) {
    config_.upper_format = format;
    Client client(config_);
    MakeStoppedSandbox(client, "baseline", dir_ / "base.img");
    return GetSandbox(ctx_, "baseline", client).Upper().path;
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Config config_{.home = dir_ / "home", .backend = "local"};
};

TEST_F(LargeDiskTest, CallsThatReadARawDiskEndAtTheirDeadline) {
  std::filesystem::resize_file(MakeUpper(DiskFormat::kRaw), std::uint64_t{2} << 40);
  Client client(config_);
  Snapshot::Create(ctx_, "baseline", {.name = "s", .record_integrity = true}, client);
  ExpectEnds(
      [](const Context& ctx, Client& c) { Snapshot::Create(ctx, "baseline", {.name = "new"}, c); });
  ExpectEnds([](const Context& ctx, Client& c) {
    Snapshot::Create(ctx, "baseline", {.name = "new", .record_integrity = true}, c);
  });
  ExpectEnds([this](const Context& ctx, Client& c) {
    std::ignore = Snapshot::Open(ctx_, "s", c).Verify(ctx);
  });
  ExpectEnds(
      [this](const Context& ctx, Client& c) { Snapshot::Export(ctx, "s", dir_ / "new", {}, c); });
  ExpectEnds(
      [this](const Context& ctx, Client& c) { Snapshot::Flatten(ctx, "s", dir_ / "new", {}, c); });
  ExpectEnds([](const Context& ctx, Client& c) { Snapshot::Squash(ctx, "s", {.name = "new"}, c); });
  ExpectEnds([](const Context& ctx, Client& c) {
    CreateSandbox(ctx, "new", {WithSnapshot("s")}, c).Close();
  });
  EXPECT_FALSE(std::filesystem::exists(dir_ / "new"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "home" / "snapshots" / "new"));
}

TEST_F(LargeDiskTest, CallsThatReadAnEmptyQcow2DiskEndAtTheirDeadline) {
  const std::filesystem::path upper = MakeUpper(DiskFormat::kQcow2);
  Client client(config_);
  const auto record = client.backend()->Inspect(ctx_, "baseline");
  MakeEmptyQcow2(upper, record.backing.at(0).name, 4'000'000);
  Snapshot::Create(ctx_, "baseline", {.name = "s"}, client);
  ExpectEnds(
      [this](const Context& ctx, Client& c) { Snapshot::Flatten(ctx, "s", dir_ / "new", {}, c); });
  ExpectEnds([](const Context& ctx, Client& c) { Snapshot::Squash(ctx, "s", {.name = "new"}, c); });
  EXPECT_FALSE(std::filesystem::exists(dir_ / "new"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "home" / "snapshots" / "new"));
}

}  // namespace
}  // namespace msb::test
