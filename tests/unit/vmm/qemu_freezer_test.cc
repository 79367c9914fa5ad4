// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_freezer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/base/lock.h"
#include "src/base/unix_socket.h"
#include "tests/support/event.h"
#include "tests/unit/vmm/scripted_agent.h"

namespace msb::vmm {
namespace {

using test::AgentConnection;
using test::Soon;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kDemanded = LiveSnapshot::kFilesystemConsistent;

// A directory of a sandbox whose QEMU and agent are scripted.
class QemuFreezerTest : public ::testing::Test {
 protected:
  void Serve(test::AgentScript script) {
    agent_.emplace(base::ListenAt(fd_.get(), kAgentSocketFile), std::move(script));
  }

  bool IsAgentLocked() const {
    const base::UniqueFd lock = base::OpenForUpdateAt(fd_.get(), "agent.lock");
    return !base::TryLock(lock.get());
  }

  // Waits until no process uses the agent.
  void AwaitUnlocked() const {
    const base::UniqueFd lock = base::OpenForUpdateAt(fd_.get(), "agent.lock");
    base::Lock(Soon(), lock.get());
  }

  const test::TempDir dir_;
  const base::UniqueFd fd_ = base::OpenDirectory(dir_.path());
  base::UniqueFd qmp_ = base::ListenAt(fd_.get(), kQmpSocketFile);
  std::optional<test::ListeningAgent> agent_;
  std::vector<std::string> warnings_;
  const Warn warn_ = [this](std::string message) { warnings_.push_back(std::move(message)); };
  const GuestAddress guest_{fd_.get(), "box"};
};

TEST_F(QemuFreezerTest, FreezesAndThaws) {
  Serve([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    self.Return(2);
    self.Expect("guest-fsfreeze-thaw");
    self.Return(2);
    self.ReportState("thawed");
    self.AwaitEnd();
  });
  QemuFreezer freezer(guest_, warn_);
  EXPECT_TRUE(freezer.Freeze(Soon(), kDemanded));
  EXPECT_TRUE(IsAgentLocked());
  EXPECT_TRUE(freezer.Thaw());
  EXPECT_FALSE(IsAgentLocked());
  EXPECT_THAT(warnings_, IsEmpty());
}

// Freezing may take minutes. Another process thaws the file systems afterwards, and keeps other
// clients out until then.
TEST_F(QemuFreezerTest, ACancelledCallDoesNotWaitForTheAgent) {
  const auto [ctx, cancel] = Soon().WithCancel();
  test::Event has_returned;
  Serve([&, cancel = cancel](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    cancel();
    has_returned.Wait();
    self.Expect("guest-fsfreeze-thaw");
    EXPECT_TRUE(IsAgentLocked());
    self.Return(1);
    self.Synchronize();
    self.AwaitEnd();
  });
  QemuFreezer freezer(guest_, warn_);
  EXPECT_MSB_ERROR(freezer.Freeze(ctx, kDemanded), ErrorKind::kCancelled, "cancelled");
  EXPECT_TRUE(IsAgentLocked());
  has_returned.Set();
  AwaitUnlocked();
}

TEST_F(QemuFreezerTest, ARefusalIsFollowedByAThaw) {
  Serve([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    self.Refuse("GenericError", "failed to freeze /");
    self.Expect("guest-fsfreeze-thaw");
    self.Return(0);
    self.ReportState("thawed");
    self.AwaitEnd();
  });
  QemuFreezer freezer(guest_, warn_);
  EXPECT_FALSE(freezer.Freeze(Soon(), LiveSnapshot::kAuto));
  EXPECT_FALSE(IsAgentLocked());
  EXPECT_THAT(warnings_, ElementsAre(AllOf(HasSubstr("only crash-consistent"),
                                           HasSubstr("failed to freeze /"))));
}

// Each piece arrives before the agent counts as silent.
TEST_F(QemuFreezerTest, AReplyInManyPiecesDoesNotDelayTheSnapshot) {
  test::Event has_returned;
  Serve([&](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    while (!has_returned.WaitFor(std::chrono::milliseconds(5)) && self.TrySend(" ")) {
    }
  });
  QemuFreezer freezer(guest_, warn_, std::chrono::milliseconds(200));
  EXPECT_FALSE(freezer.Freeze(Soon(), LiveSnapshot::kAuto));
  has_returned.Set();
  EXPECT_THAT(warnings_,
              ElementsAre(AllOf(HasSubstr("the snapshot of sandbox 'box' is only crash-consistent"),
                                HasSubstr("did not freeze the file systems within 200 ms"),
                                HasSubstr("restart it"))));
}

TEST_F(QemuFreezerTest, FileSystemsThatWereThawedTooEarlyAreNoticed) {
  Serve([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    self.Return(2);
    self.Expect("guest-fsfreeze-thaw");
    self.Return(1);
    self.ReportState("thawed");
    self.AwaitEnd();
  });
  QemuFreezer freezer(guest_, warn_);
  EXPECT_TRUE(freezer.Freeze(Soon(), kDemanded));
  EXPECT_FALSE(freezer.Thaw());
}

// Many guests do not permit these commands. Nothing is frozen then, and there is nothing to fear.
TEST_F(QemuFreezerTest, AForbiddenFreezeCausesOneWarning) {
  const std::string reason = "Command has been disabled";
  Serve([&](AgentConnection& self) {
    self.Synchronize();
    for (const char* command :
         {"guest-fsfreeze-freeze", "guest-fsfreeze-status", "guest-fsfreeze-thaw"}) {
      self.Expect(command);
      self.Refuse("CommandNotFound", reason);
    }
    self.AwaitEnd();
  });
  QemuFreezer freezer(guest_, warn_);
  EXPECT_FALSE(freezer.Freeze(Soon(), LiveSnapshot::kAuto));
  EXPECT_FALSE(freezer.Thaw());
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("only crash-consistent")));
}

TEST_F(QemuFreezerTest, ADemandThatIsRefusedNamesTheAlternative) {
  Serve([](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    self.Return(0);
    self.Expect("guest-fsfreeze-thaw");
    self.Return(0);
    self.ReportState("thawed");
    self.AwaitEnd();
  });
  QemuFreezer freezer(guest_, warn_);
  EXPECT_MSB_ERROR(freezer.Freeze(Soon(), kDemanded), ErrorKind::kUnsupportedOperation,
                   "sandbox 'box'", "no mounted file system", "LiveSnapshot::kAuto");
}

TEST_F(QemuFreezerTest, AVmThatEndsIsNotARefusal) {
  Serve([this](AgentConnection& self) {
    self.Synchronize();
    self.Expect("guest-fsfreeze-freeze");
    qmp_.Reset(-1);
  });
  QemuFreezer freezer(guest_, warn_);
  EXPECT_MSB_ERROR(freezer.Freeze(Soon(), kDemanded), ErrorKind::kIO, "sandbox 'box'", "ended",
                   "console.log");
}

TEST_F(QemuFreezerTest, AFailedThawDoesNotCountAsFrozen) {
  Serve([](AgentConnection& self) {
    if (!self.Synchronize()) return;
    self.Expect("guest-fsfreeze-freeze");
    self.Return(1);
    self.Expect("guest-fsfreeze-thaw");
  });
  QemuFreezer freezer(guest_, warn_);
  EXPECT_TRUE(freezer.Freeze(Soon(), kDemanded));
  EXPECT_FALSE(freezer.Thaw());
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("cannot thaw the file systems of sandbox 'box'")));
}

}  // namespace
}  // namespace msb::vmm
