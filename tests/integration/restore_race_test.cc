// SPDX-License-Identifier: Apache-2.0
//
// Restore and other calls at the same time, as the table in msb/snapshot.h describes it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/sandbox_disk.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

constexpr std::uint64_t kRaceMiB = 1 << 20;

class RestoreRaceTest : public ::testing::Test {
 protected:
  // Makes a raw sandbox, and snapshots "a" and "b" with different content.
  RestoreRaceTest() {
    MakeSparseFile(dir_ / "base.img", 2 * kRaceMiB, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "one", {WithImage(dir_ / "base.img")}, client_).Close();
    a_ = Step(1, "a");
    b_ = Step(2, "b");
  }

  // Returns the content of the sandbox's disk.
  std::string Step(int byte, const std::string& name, bool force = false) {
    WriteAsGuest("one", byte, kRaceMiB, client_);
    Snapshot::Create(ctx_, "one", {.name = name, .force = force}, client_);
    return DiskOf("one", client_);
  }

  // Restores the sandbox, and calls meanwhile once, while the disk is copied.
  void Restore(const std::string& sandbox, const std::string& snapshot,
               const std::function<void()>& meanwhile) {
    bool ran = false;
    Snapshot::Restore(ctx_.WithProgress([&](const Progress&) {
      if (!std::exchange(ran, true)) meanwhile();
    }),
                      sandbox, snapshot, client_);
    EXPECT_TRUE(ran) << "the operation reported no progress";
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client client_{{.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kRaw}};
  std::string a_;
  std::string b_;
};

TEST_F(RestoreRaceTest, UsesTheSnapshotThatReplacesItsOwn) {
  CreateSandbox(ctx_, "two", {WithImage(dir_ / "base.img")}, client_).Close();
  std::string replaced;
  Restore("two", "a", [&] { replaced = Step(3, "a", /*force=*/true); });
  EXPECT_TRUE(DiskOf("two", client_) == replaced);
}

TEST_F(RestoreRaceTest, ASnapshotThatIsRemovedMeanwhileIsNotRestored) {
  const auto before = ListTree(dir_ / "home/sandboxes/one");
  EXPECT_MSB_ERROR(Restore("one", "a", [&] { Snapshot::Remove(ctx_, "a", false, client_); }),
                   ErrorKind::kSnapshotNotFound, "/snapshots/a");
  EXPECT_EQ(ListTree(dir_ / "home/sandboxes/one"), before);
}

TEST_F(RestoreRaceTest, OtherCallsForTheSandboxWait) {
  const std::vector<std::function<void()>> calls = {
      [&] { StartSandbox(ctx_, "one", client_).Stop(ctx_); },
      [&] { Snapshot::Restore(ctx_, "one", "b", client_); },
      [&] { RemoveSandbox(ctx_, "one", client_); }};
  for (const auto& call : calls) {
    std::jthread thread;
    Restore("one", "a", [&] {
      // A call that does not want to wait gives up.
      EXPECT_MSB_ERROR(
          Snapshot::Restore(ctx_.WithTimeout(std::chrono::milliseconds(1)), "one", "b", client_),
          ErrorKind::kCancelled, "deadline");
      thread = std::jthread([&] { EXPECT_NO_THROW(call()); });
    });
  }
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "one", client_), ErrorKind::kSandboxNotFound, "no sandbox");
}

TEST_F(RestoreRaceTest, CreateOfARawDiskHasTheFormerOrTheNewDisk) {
  // What the sandbox has now differs from both snapshots.
  WriteAsGuest("one", 5, kRaceMiB, client_);
  const std::string former = DiskOf("one", client_);
  bool ran = false;
  Snapshot::Create(ctx_.WithProgress([&](const Progress&) {
    if (!std::exchange(ran, true)) Snapshot::Restore(ctx_, "one", "a", client_);
  }),
                   "one", {.name = "c"}, client_);
  Snapshot::Flatten(ctx_, "c", dir_ / "flat", {}, client_);
  const std::string content = ReadFile(dir_ / "flat");
  EXPECT_TRUE(content == former || content == a_);
}

TEST_F(RestoreRaceTest, ConcurrentRestoresHappenOneAfterTheOther) {
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 6; ++i) {
      threads.emplace_back([&, name = std::string(i % 2 == 0 ? "a" : "b")] {
        EXPECT_NO_THROW(Snapshot::Restore(ctx_, "one", name, client_));
      });
    }
  }
  const std::string content = DiskOf("one", client_);
  const auto digest = client_.backend()->Inspect(ctx_, "one").snapshot_digest;
  const bool has_a = digest == Snapshot::Get(ctx_, "a", client_).Digest();
  EXPECT_TRUE(content == (has_a ? a_ : b_));
}

}  // namespace
}  // namespace msb::test
