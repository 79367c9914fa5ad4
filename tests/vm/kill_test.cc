// SPDX-License-Identifier: Apache-2.0
//
// The library's process is killed at each step of what it does with a VM. After that the home must
// be usable at once, no VM may run that is not recorded, and no file of a snapshot may be writable.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <exception>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <tuple>

#include "tests/support/syscall_tracer.h"
#include "tests/vm/small_vm.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kShutdownTimeout = seconds(60);

struct Scenario {
  std::function<void(int n)> before = [](int) {};  // Runs in the test before each try.
  // Run in the process that may be killed: what leads up to the call, and the call.
  std::function<void(Client& client)> prepare = [](Client&) {};
  std::function<void(Client& client)> call = {};
  std::function<void(int n)> after = {};  // Runs in the test after each try.
};

class KillTest : public SmallVmTest {
 protected:
  void SetUp() override {
    SmallVmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    Client client = NewClient();
    CreateSandbox(ctx_, "first", {WithImage(image_)}, client).Kill(ctx_);
    Snapshot::Create(ctx_, "first", {.name = "base", .record_integrity = true}, client);
    RemoveSandbox(ctx_, "first", client);
    ExpectAllEnd();
  }

  // Makes the call in a child process, and kills that before each of its steps in turn, until the
  // call completes.
  void KillAtEachStep(const Scenario& scenario) {
    for (int n = 0;; ++n) {
      scenario.before(n);
      bool prepared = false;
      const auto is_step = [&](const SystemCall& call) {
        prepared = prepared || call.number == SYS_getppid;
        return prepared && IsStep(call);
      };
      const TracedRun run = InterfereAtSyscall(
          n, is_step, [&] { return Run(scenario); }, [](pid_t child) { kill(child, SIGKILL); });
      SCOPED_TRACE(run.interfered
                       ? fmt::format("killed before step {}, system call {}", n, run.syscall)
                       : "not killed");
      ExpectProcessesKnown();
      ExpectSnapshotsSealed();
      scenario.after(n);
      if (HasFailure()) return;
      if (run.interfered) continue;
      EXPECT_EQ(run.exit_status, 0);
      EXPECT_GT(n, 5);
      return;
    }
  }

  int Run(const Scenario& scenario) const {
    try {
      Client client = NewClient();
      scenario.prepare(client);
      syscall(SYS_getppid);  // Tells the tracer that the call begins; nothing else calls getppid.
      scenario.call(client);
      return 0;
    } catch (const std::exception& e) {
      fmt::print(stderr, "in a child: {}\n", e.what());
      return 1;
    }
  }

  void MakeStopped(const std::string& name) {
    Client client = NewClient();
    CreateSandbox(ctx_, name, {WithSnapshot("base")}, client).Kill(ctx_);
    ExpectAllEnd();
  }

  // Boots a detached sandbox, and waits until its firmware listens for the power button.
  void MakeDetached(const std::string& name) {
    Client client = NewClient();
    std::ignore = CreateSandbox(ctx_, name, {WithSnapshot("base"), WithDetached()}, client);
    AwaitFirmware(name);
  }

  // Expects everything to work that a user may do next with a sandbox that does not run. n selects
  // what is done first. Removes the sandbox.
  void ExpectUsable(const std::string& name, int n) {
    Client client = NewClient();
    ASSERT_EQ(ListSandboxes(ctx_, client).size(), 1U);
    EXPECT_NE(ListSandboxes(ctx_, client)[0].Status(), SandboxStatus::kRunning);
    if (n % 8 == 7) {
      RemoveSandbox(ctx_, name, client);
      EXPECT_MSB_ERROR(GetSandbox(ctx_, name, client), ErrorKind::kSandboxNotFound,
                       "no sandbox '" + name + "'");
      RemoveOtherSnapshots();
      ExpectNothingLeft();
      return;
    }
    if (n % 3 == 1) {
      const SandboxStatus before = StatusOf(name);
      GetSandbox(ctx_, name, client).Stop(ctx_);
      EXPECT_EQ(StatusOf(name), before);
      ExpectNoRemains(name);
    }
    if (n % 3 == 2) Snapshot::Create(ctx_, name, {.name = "before"}, client);
    StartSandbox(ctx_, name, client).Detach(ctx_);
    EXPECT_EQ(StatusOf(name), SandboxStatus::kRunning);
    ExpectProcessesKnown();
    ExpectSnapshotsSealed();
    GetSandbox(ctx_, name, client).Kill(ctx_);
    EXPECT_EQ(StatusOf(name), SandboxStatus::kStopped);
    ExpectNoRemains(name);
    Snapshot::Create(ctx_, name, {.name = "next", .record_integrity = true}, client);
    ExpectSnapshotsSealed();
    ExpectSnapshotsVerify();
    RemoveSandbox(ctx_, name, client);
    RemoveOtherSnapshots();
    ExpectNothingLeft();
  }

  void ExpectSnapshotsVerify() const {
    Client client = NewClient();
    for (const auto& artifact : Snapshot::ListDir(ctx_, "", client)) {
      EXPECT_NO_THROW(std::ignore = artifact.Verify(ctx_)) << artifact.Path();
    }
  }

  void RemoveOtherSnapshots() const {
    Client client = NewClient();
    for (const auto& artifact : Snapshot::ListDir(ctx_, "", client)) {
      if (fs::path(artifact.Path()).filename() == "base") continue;
      Snapshot::Remove(ctx_, artifact.Path(), true, client);
    }
    // Like every Create, deletes the stages that were left there.
    EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "absent", {.name = "other"}, client),
                     ErrorKind::kSandboxNotFound, "no sandbox 'absent'");
  }

  // Expects that no sandbox, no snapshot except "base", no stage and no process is left.
  void ExpectNothingLeft() const {
    EXPECT_TRUE(ListTree(sandboxes_).empty());
    EXPECT_EQ(ListTree(home_ / "snapshots").size(), 3U);  // base and its two files.
    ExpectAllEnd();
  }

  bool Exists(const std::string& name) const { return fs::exists(sandboxes_ / name); }
};

TEST_F(KillTest, ACreateLeavesNothingOrASandboxThatDoesNotRun) {
  bool seen_absent = false;
  bool seen_whole = false;
  Scenario scenario;
  scenario.call = [&](Client& client) {
    const Sandbox sandbox = CreateSandbox(ctx_, "a", {WithSnapshot("base")}, client);
    _exit(0);
  };
  scenario.after = [&](int n) {
    ExpectAllEnd();
    (Exists("a") ? seen_whole : seen_absent) = true;
    if (!Exists("a")) MakeStopped("a");
    ExpectUsable("a", n);
  };
  KillAtEachStep(scenario);
  EXPECT_TRUE(seen_absent);
  EXPECT_TRUE(seen_whole);
}

// Up to a certain step, a detached VM ends with the process that boots it. From that step on it
// outlives the process, and any client of the home can stop it. The sandbox that it replaces exists
// until the new one does.
TEST_F(KillTest, ADetachedOneThatReplacesAnotherIsKnownOrEnds) {
  bool seen_old = false;
  bool seen_ended = false;
  bool seen_running = false;
  Scenario scenario;
  scenario.before = [&](int) { MakeDetached("a"); };
  scenario.call = [&](Client& client) {
    std::ignore = CreateSandbox(
        ctx_, "a", {WithSnapshot("base"), WithReplace(), WithLabel("age", "new"), WithDetached()},
        client);
  };
  scenario.after = [&](int n) {
    AwaitFirmware("a");
    Client client = NewClient();
    const SandboxHandle sandbox = GetSandbox(ctx_, "a", client);
    const bool is_new = sandbox.ConfigJSON().find("\"new\"") != std::string::npos;
    const bool runs = sandbox.Status() == SandboxStatus::kRunning;
    (!is_new ? seen_old : runs ? seen_running : seen_ended) = true;
    if (runs) sandbox.Stop(ctx_, {WithStopTimeout(kShutdownTimeout)});
    ExpectAllEnd();
    ExpectUsable("a", n);
  };
  KillAtEachStep(scenario);
  EXPECT_TRUE(seen_old);
  EXPECT_TRUE(seen_ended);
  EXPECT_TRUE(seen_running);
}

TEST_F(KillTest, AStartLeavesASandboxThatDoesNotRun) {
  Scenario scenario;
  scenario.before = [&](int n) {
    MakeStopped("a");
    if (n % 2 == 0) return;
    Client client = NewClient();
    StartSandbox(ctx_, "a", client).Detach(ctx_);
    base::ProcessHandle::Open(ProcessOf(ctx_, client, "a")).value().Kill();
    ExpectAllEnd();
    EXPECT_EQ(StatusOf("a"), SandboxStatus::kCrashed);
  };
  scenario.call = [&](Client& client) {
    const Sandbox sandbox = StartSandbox(ctx_, "a", client);
    _exit(0);
  };
  scenario.after = [&](int n) {
    ExpectAllEnd();
    Client client = NewClient();
    const SandboxHandle sandbox = GetSandbox(ctx_, "a", client);
    const bool has_begun = sandbox.ConfigJSON().find("\"running\"") != std::string::npos;
    if (n % 2 == 0) {
      EXPECT_EQ(sandbox.Status(), has_begun ? SandboxStatus::kCrashed : SandboxStatus::kStopped);
    }
    ExpectUsable("a", n / 2);
  };
  KillAtEachStep(scenario);
}

// The process that stops a VM need not be the one that booted it. If it is killed, the VM runs on
// unless it was told to end, and another process can stop it.
TEST_F(KillTest, AStopLeavesOneThatCanBeStopped) {
  for (const milliseconds timeout : {milliseconds(kShutdownTimeout), milliseconds(0)}) {
    bool seen_running = false;
    bool seen_ended = false;
    Scenario scenario;
    scenario.before = [&](int) { MakeDetached("a"); };
    scenario.call = [&](Client& client) {
      GetSandbox(ctx_, "a", client).Stop(ctx_, {WithStopTimeout(timeout)});
    };
    scenario.after = [&](int n) {
      Client client = NewClient();
      const SandboxHandle sandbox = GetSandbox(ctx_, "a", client);
      (sandbox.Status() == SandboxStatus::kRunning ? seen_running : seen_ended) = true;
      sandbox.Stop(ctx_, {WithStopTimeout(kShutdownTimeout)});
      // The status is kCrashed if the VM had ended without a record of that; the next Stop keeps
      // it.
      EXPECT_NE(StatusOf("a"), SandboxStatus::kRunning);
      ExpectNoRemains("a");
      ExpectAllEnd();
      ExpectUsable("a", n);
    };
    KillAtEachStep(scenario);
    EXPECT_TRUE(seen_running);
    EXPECT_TRUE(seen_ended);
  }
}

TEST_F(KillTest, AStopOfOnesOwnEndsItAllTheSame) {
  std::optional<Sandbox> sandbox;
  Scenario scenario;
  scenario.before = [&](int) { MakeStopped("a"); };
  scenario.prepare = [&](Client& client) {
    fs::remove(ConsoleOf("a"));
    sandbox = StartSandbox(ctx_, "a", client);
    AwaitFirmware("a");
  };
  scenario.call = [&](Client&) { sandbox->Stop(ctx_, {WithStopTimeout(kShutdownTimeout)}); };
  scenario.after = [&](int n) {
    ExpectAllEnd();
    ExpectUsable("a", n);
  };
  KillAtEachStep(scenario);
}

TEST_F(KillTest, ASealHappensOrNot) {
  bool seen_absent = false;
  bool seen_whole = false;
  Scenario scenario;
  scenario.before = [&](int) { MakeStopped("a"); };
  scenario.call = [&](Client& client) {
    Snapshot::Create(ctx_, "a", {.name = "sealed", .record_integrity = true}, client);
  };
  scenario.after = [&](int n) {
    const bool there = fs::exists(home_ / "snapshots/sealed");
    (there ? seen_whole : seen_absent) = true;
    ExpectSnapshotsVerify();
    if (n % 2 == 0) {
      Client client = NewClient();
      const auto next = Snapshot::Create(ctx_, "a", {.name = there ? "after" : "sealed"}, client);
      const std::string parent = there ? "sealed" : "base";
      EXPECT_EQ(next.Parent(), Snapshot::Open(ctx_, parent, client).Digest());
      ExpectSnapshotsSealed();
    }
    ExpectUsable("a", n / 2);
  };
  KillAtEachStep(scenario);
  EXPECT_TRUE(seen_absent);
  EXPECT_TRUE(seen_whole);
}

TEST_F(KillTest, ARemovalTakesAllOrNothing) {
  bool seen_absent = false;
  bool seen_whole = false;
  Scenario scenario;
  scenario.before = [&](int) { MakeStopped("a"); };
  scenario.call = [&](Client& client) { RemoveSandbox(ctx_, "a", client); };
  scenario.after = [&](int n) {
    (Exists("a") ? seen_whole : seen_absent) = true;
    if (!Exists("a")) MakeStopped("a");
    ExpectUsable("a", n);
  };
  KillAtEachStep(scenario);
  EXPECT_TRUE(seen_absent);
  EXPECT_TRUE(seen_whole);
}

// A call that replaces a sandbox holds its lock from before it is stopped until it is gone. A VM
// that was started in between would run on without a record. The few places that take a lock are
// tried: before each of them, another process tries to start the sandbox.
TEST_F(KillTest, ASandboxBeingReplacedCannotBeStarted) {
  Scenario scenario;
  scenario.call = [&](Client& client) {
    std::ignore =
        CreateSandbox(ctx_, "a", {WithSnapshot("base"), WithReplace(), WithDetached()}, client);
  };
  const auto is_lock = [](const SystemCall& call) { return call.number == SYS_flock; };
  const auto start = [&](pid_t) {
    try {
      Client client = NewClient();
      StartSandbox(ctx_.WithTimeout(milliseconds(200)), "a", client).Detach(ctx_);
      AwaitFirmware("a");
    } catch (const Error& e) {
      // It waits for the lock until its deadline, or finds the new sandbox running.
      EXPECT_TRUE(e.kind() == ErrorKind::kCancelled || e.kind() == ErrorKind::kSandboxStillRunning)
          << e.what();
    }
  };
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    MakeStopped("a");
    const TracedRun run = InterfereAtSyscall(
        n, is_lock, [&] { return Run(scenario); }, start);
    EXPECT_EQ(run.exit_status, 0);
    EXPECT_EQ(ProcessesIn(sandboxes_).size(), 1U);
    ExpectProcessesKnown();
    Client client = NewClient();
    GetSandbox(ctx_, "a", client).Kill(ctx_);
    RemoveSandbox(ctx_, "a", client);
    ExpectNothingLeft();
    if (!run.interfered || HasFailure()) break;
  }
}

// The VM runs on, whatever was done of the snapshot, and the disk keeps all data. n selects what is
// done next.
TEST_F(KillTest, ALiveSnapshotLeavesOneThatContinues) {
  bool seen_absent = false;
  bool seen_whole = false;
  Scenario scenario;
  scenario.before = [&](int) {
    MakeDetached("a");
    WriteDisk("a", 'x', 0);
  };
  scenario.call = [&](Client& client) {
    Snapshot::Create(ctx_, "a", {.name = "live", .live = LiveSnapshot::kCrashConsistent}, client);
  };
  scenario.after = [&](int n) {
    EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
    WriteDisk("a", 'y', 1);
    Client client = NewClient();
    const bool is_whole = fs::exists(home_ / "snapshots/live");
    (is_whole ? seen_whole : seen_absent) = true;
    EXPECT_EQ(is_whole ? BlocksOf("live", 1) : "x", "x");
    if (n % 3 == 0) {
      const auto second = Snapshot::Create(
          ctx_, "a", {.name = "second", .live = LiveSnapshot::kCrashConsistent}, client);
      EXPECT_EQ(second.Consistency(), "crash-consistent");
      EXPECT_EQ(BlocksOf("second", 2), "xy");
      WriteDisk("a", 'z', 2);
    }
    GetSandbox(ctx_, "a", client).Kill(ctx_);
    if (n % 3 == 1) {
      StartSandbox(ctx_, "a", client).Detach(ctx_);
      GetSandbox(ctx_, "a", client).Kill(ctx_);
    }
    ExpectAllEnd();
    const auto last = Snapshot::Create(ctx_, "a", {.name = "last"}, client);
    EXPECT_EQ(last.Consistency(), "stopped");
    EXPECT_EQ(BlocksOf("last", n % 3 == 0 ? 3 : 2), n % 3 == 0 ? "xyz" : "xy");
    ExpectUsable("a", n);
  };
  KillAtEachStep(scenario);
  EXPECT_TRUE(seen_absent);
  EXPECT_TRUE(seen_whole);
}

TEST_F(KillTest, ARestoreLeavesTheFormerDiskOrTheNewOne) {
  bool seen_former = false;
  bool seen_new = false;
  Scenario scenario;
  scenario.before = [&](int) {
    MakeDetached("a");
    WriteDisk("a", 'x', 0);
    Client client = NewClient();
    GetSandbox(ctx_, "a", client).Kill(ctx_);
    ExpectAllEnd();
  };
  scenario.call = [&](Client& client) { Snapshot::Restore(ctx_, "a", "base", client); };
  scenario.after = [&](int n) {
    Client client = NewClient();
    Snapshot::Create(ctx_, "a", {.name = "found"}, client);
    (BlocksOf("found", 1) == "x" ? seen_former : seen_new) = true;
    ExpectUsable("a", n);
  };
  KillAtEachStep(scenario);
  EXPECT_TRUE(seen_former);
  EXPECT_TRUE(seen_new);
}

}  // namespace
}  // namespace msb::test
