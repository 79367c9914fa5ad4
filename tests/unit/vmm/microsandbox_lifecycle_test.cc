// SPDX-License-Identifier: Apache-2.0
//
// Booting and ending sandboxes, with a script as the program msb.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <thread>

#include "src/base/home.h"
#include "src/base/sqlite.h"
#include "src/base/time.h"
#include "src/vmm/microsandbox_backend.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

namespace fs = std::filesystem;

using base::Database;
using base::Statement;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Uses the home that 0.6.18 made, with one sandbox: baseline, stopped.
class MicrosandboxLifecycleTest : public testing::Test {
 protected:
  MicrosandboxLifecycleTest() {
    EXPECT_EQ(mkfifo((dir_ / "called").c_str(), 0600), 0);
    EXPECT_EQ(mkfifo((dir_ / "answer").c_str(), 0600), 0);
    Install("exit 1");
    Execute("UPDATE run SET pid = NULL");  // Without a pid, each status is believed.
  }
  ~MicrosandboxLifecycleTest() override {
    if (runtime_.joinable()) runtime_.join();
  }

  // Installs a runtime that records its arguments, one line for each call, and then runs script.
  void Install(const std::string& script) {
    test::WriteFile(program_,
                    "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'msb 0.6.18'; exit; }\n" +
                        ("echo \"$*\" >> '" + (dir_ / "calls").native() + "'\n") + script + "\n");
    fs::permissions(program_, fs::perms::owner_all);
  }

  // Like Install, but each call waits until the next of these actions is done. The actions do what
  // the runtime would do to its database.
  void InstallActing(const std::vector<std::function<void()>>& actions,
                     const std::string& then = "exit 0") {
    Install("echo > '" + (dir_ / "called").native() + "'; read line < '" +
            (dir_ / "answer").native() + "'; " + then);
    if (runtime_.joinable()) runtime_.join();
    runtime_ = std::thread([this, actions] {
      for (const auto& action : actions) {
        std::ifstream(dir_ / "called").get();
        action();
        std::ofstream(dir_ / "answer") << "done\n";
      }
    });
  }

  std::vector<std::string> Calls() {
    std::vector<std::string> calls;
    std::ifstream file(dir_ / "calls");
    for (std::string line; std::getline(file, line);) calls.push_back(line);
    return calls;
  }

  void Execute(const std::string& sql) {
    Database(database_, Database::Mode::kReadWrite).Execute(sql);
  }

  void Insert(const std::string& name, const std::string& status) {
    Execute("INSERT INTO sandbox (name, config, status) SELECT '" + name + "', config, '" + status +
            "' FROM sandbox WHERE name = 'baseline'");
  }
  void SetStatus(const std::string& status) {
    Execute("UPDATE sandbox SET status = '" + status + "' WHERE name = 'baseline'");
  }

  // Records that baseline runs as that process.
  void RunAs(pid_t pid) {
    SetStatus("Running");
    const Database db(database_, Database::Mode::kReadWrite);
    Statement run(db,
                  "INSERT INTO run (sandbox_id, pid, status, started_at) "
                  "VALUES (1, ?1, 'Running', ?2)");
    const std::string now = base::FormatIndexTime(base::UtcTime::Now());
    run.Bind(1, std::int64_t{pid}).Bind(2, std::string_view(now)).Run();
  }

  SandboxStatus StatusOf(const std::string& name) { return backend_.Inspect(ctx_, name).status; }

  SandboxSpec Spec(const std::string& name = "new") const {
    SandboxSpec spec{.name = name};
    spec.snapshot = SnapshotSource{.artifact = "/snapshots/base"};
    return spec;
  }

  const Context ctx_ = Context::Background().WithTimeout(std::chrono::minutes(2));
  const test::TempDir dir_;
  const fs::path home_ = test::UnpackFixtureHome("0.6.18", dir_.path());
  const fs::path database_ = home_ / "db" / "msb.db";
  const fs::path program_ = dir_ / "bin" / "msb";
  std::vector<std::string> log_;
  MicrosandboxBackend backend_{base::Home({.home = home_}), program_,
                               [this](std::string_view message) { log_.emplace_back(message); }};
  std::thread runtime_;
};

TEST_F(MicrosandboxLifecycleTest, CreateReturnsTheSandboxThatTheRuntimeCreated) {
  InstallActing({[&] { Insert("new", "Running"); }});
  const SandboxRecord record = backend_.Create(ctx_, Spec());
  EXPECT_EQ(record.name, "new");
  EXPECT_EQ(record.status, SandboxStatus::kRunning);
  EXPECT_THAT(Calls(), ElementsAre("run --detach --name new --from-snapshot /snapshots/base"));
}

TEST_F(MicrosandboxLifecycleTest, CreateDoesNotTouchATakenName) {
  EXPECT_MSB_ERROR(backend_.Create(ctx_, Spec("baseline")), ErrorKind::kSandboxAlreadyExists,
                   "sandbox 'baseline' already exists",
                   "remove it, or replace it with WithReplace");
  EXPECT_THAT(Calls(), IsEmpty());
}

TEST_F(MicrosandboxLifecycleTest, CreateLeavesASandboxAloneThatSomebodyElseMadeMeanwhile) {
  InstallActing({[&] { Insert("new", "Running"); }},
                "echo 'error: sandbox already exists: new' >&2; exit 1");
  EXPECT_MSB_ERROR(backend_.Create(ctx_, Spec()), ErrorKind::kSandboxAlreadyExists,
                   "cannot create sandbox 'new': ", "sandbox already exists: new");
  EXPECT_EQ(Calls().size(), 1U);
  EXPECT_EQ(StatusOf("new"), SandboxStatus::kRunning);
}

TEST_F(MicrosandboxLifecycleTest, AFailedCreateLeavesNothing) {
  const fs::path sandbox = home_ / "sandboxes" / "new";
  InstallActing({[&] {
                   Insert("new", "Stopped");
                   test::WriteFile(sandbox / "upper.ext4", "x");
                 },
                 [&] { Execute("DELETE FROM sandbox WHERE name = 'new'"); }},
                "[ \"$1\" = remove ] || { echo 'error: no KVM' >&2; exit 1; }");
  try {
    backend_.Create(ctx_, Spec());
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kIO);
    EXPECT_THAT(e.what(), HasSubstr("error: no KVM"));
  }
  EXPECT_EQ(Calls().back(), "remove --force new");
  EXPECT_EQ(backend_.List(ctx_).size(), 1U);
  EXPECT_FALSE(fs::exists(sandbox));
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(MicrosandboxLifecycleTest, ACancelledCreateLeavesNothing) {
  const fs::path sandbox = home_ / "sandboxes" / "new";
  const auto [ctx, cancel] = ctx_.WithCancel();
  InstallActing({[&, cancel = cancel] {
                   Insert("new", "Starting");
                   test::WriteFile(sandbox / "upper.ext4", "x");
                   cancel();
                 },
                 [&] { Execute("DELETE FROM sandbox WHERE name = 'new'"); }},
                "[ \"$1\" = remove ] || exec sleep 1000");
  EXPECT_MSB_ERROR(backend_.Create(ctx, Spec()), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(backend_.List(ctx_).size(), 1U);
  EXPECT_FALSE(fs::exists(sandbox));
}

TEST_F(MicrosandboxLifecycleTest, AFailedCreateLogsTheSandboxThatItCannotRemove) {
  InstallActing({[&] { Insert("new", "Stopped"); }, [] {}}, "echo 'error: io error' >&2; exit 1");
  EXPECT_MSB_ERROR(backend_.Create(ctx_, Spec()), ErrorKind::kIO, "cannot create sandbox 'new': ",
                   "/bin/msb run ended with status 1: error: io error");
  ASSERT_EQ(log_.size(), 1U);
  EXPECT_THAT(log_[0], HasSubstr("parts of it remain"));
}

TEST_F(MicrosandboxLifecycleTest, CreateThatReplacesRemovesTheOldOneFirst) {
  SetStatus("Running");
  InstallActing({[&] { SetStatus("Stopped"); },
                 [&] { Execute("DELETE FROM sandbox WHERE name = 'baseline'"); },
                 [&] {
                   Execute(
                       "INSERT INTO sandbox (name, config, status) "
                       "VALUES ('baseline', '{}', 'Running')");
                 }});
  SandboxSpec spec = Spec("baseline");
  spec.replace = true;
  EXPECT_EQ(backend_.Create(ctx_, spec).status, SandboxStatus::kRunning);
  EXPECT_THAT(Calls(), ElementsAre("stop -t 10 baseline", "remove baseline",
                                   "run --detach --name baseline --from-snapshot /snapshots/base"));
}

TEST_F(MicrosandboxLifecycleTest, ASourceThatCannotBootReplacesNothing) {
  SandboxSpec spec = Spec("baseline");
  spec.replace = true;
  spec.snapshot->upper.format = DiskFormat::kQcow2;
  EXPECT_MSB_ERROR(backend_.Create(ctx_, spec), ErrorKind::kUnsupportedOperation, "/snapshots/base",
                   "Snapshot::Squash");
  spec = Spec("baseline");
  spec.replace = true;
  fs::remove(program_);
  EXPECT_MSB_ERROR(backend_.Create(ctx_, spec), ErrorKind::kInvalidConfig, "/bin/msb'",
                   "install it, or set Config::msb_path");
  EXPECT_EQ(StatusOf("baseline"), SandboxStatus::kStopped);
}

TEST_F(MicrosandboxLifecycleTest, StartBootsAStoppedSandboxOnly) {
  InstallActing({[&] { SetStatus("Running"); }});
  EXPECT_EQ(backend_.Start(ctx_, "baseline", false).status, SandboxStatus::kRunning);
  EXPECT_THAT(Calls(), ElementsAre("start baseline"));
  EXPECT_MSB_ERROR(backend_.Start(ctx_, "baseline", false), ErrorKind::kSandboxStillRunning,
                   "sandbox 'baseline' is running", "stop it first");
  EXPECT_EQ(Calls().size(), 1U);
}

TEST_F(MicrosandboxLifecycleTest, AStartThatIsCancelledLeavesTheSandboxStopped) {
  const auto [ctx, cancel] = ctx_.WithCancel();
  InstallActing({[&, cancel = cancel] {
                   SetStatus("Starting");
                   cancel();
                 },
                 [&] { SetStatus("Stopped"); }},
                "[ \"$1\" = stop ] || exec sleep 1000");
  EXPECT_MSB_ERROR(backend_.Start(ctx, "baseline", false), ErrorKind::kCancelled, "cancelled");
  EXPECT_THAT(Calls(), ElementsAre("start baseline", "stop --force baseline"));
  EXPECT_EQ(StatusOf("baseline"), SandboxStatus::kStopped);
}

TEST_F(MicrosandboxLifecycleTest, ACancelledStartLeavesAVmAloneThatIsAnothers) {
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sleep", "sleep", "1000", nullptr);
    _exit(127);
  }
  const auto [ctx, cancel] = ctx_.WithCancel();
  InstallActing({[&, cancel = cancel] {
                  RunAs(child);
                  cancel();
                }},
                "exec sleep 1000");
  EXPECT_MSB_ERROR(backend_.Start(ctx, "baseline", false), ErrorKind::kCancelled, "cancelled");
  EXPECT_THAT(Calls(), ElementsAre("start baseline"));
  EXPECT_EQ(StatusOf("baseline"), SandboxStatus::kRunning);
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(MicrosandboxLifecycleTest, ACancelledStartEndsTheVmThatItBooted) {
  const std::string pid_file = (dir_ / "pid").native();
  const auto [ctx, cancel] = ctx_.WithCancel();
  InstallActing({[&, cancel = cancel] {
                   RunAs(std::stoi(test::ReadFile(pid_file)));
                   cancel();
                 },
                 [&] { SetStatus("Stopped"); }},
                "[ \"$1\" = stop ] || exec sleep 1000; kill -KILL $(cat '" + pid_file + "')");
  const std::string script = test::ReadFile(program_);
  const std::string boot =
      "[ \"$1\" = start ] && { setsid sleep 1000 & echo $! > '" + pid_file + "'; }\n";
  test::WriteFile(program_, std::string(script).insert(script.find("echo > "), boot));
  EXPECT_MSB_ERROR(backend_.Start(ctx, "baseline", false), ErrorKind::kCancelled, "cancelled");
  EXPECT_THAT(Calls(), ElementsAre("start baseline", "stop --force baseline"));
  EXPECT_FALSE(base::ProcessIdentity::Of(std::stoi(test::ReadFile(pid_file))));
}

TEST_F(MicrosandboxLifecycleTest, AStartThatSomebodyElseWonDoesNotEndTheSandbox) {
  InstallActing(
      {[&] { SetStatus("Running"); }},
      "echo \"error: sandbox still running: cannot start sandbox 'baseline'\" >&2; exit 1");
  EXPECT_MSB_ERROR(backend_.Start(ctx_, "baseline", false), ErrorKind::kSandboxStillRunning,
                   "cannot start sandbox 'baseline': ", "error: sandbox still running");
  EXPECT_EQ(Calls().size(), 1U);
}

TEST_F(MicrosandboxLifecycleTest, StoppingAStoppedSandboxDoesNotRunTheRuntime) {
  for (const char* status : {"Stopped", "Crashed", "Created"}) {
    SetStatus(status);
    backend_.Stop(ctx_, "baseline", seconds(1));
    backend_.Kill(ctx_, "baseline");
  }
  EXPECT_THAT(Calls(), IsEmpty());
}

TEST_F(MicrosandboxLifecycleTest, StopReturnsWhenItsProcessHasEnded) {
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sleep", "sleep", "1000", nullptr);
    _exit(127);
  }
  RunAs(child);
  InstallActing({[&] { SetStatus("Stopped"); }},  // Before the process has ended.
                "(kill -KILL " + std::to_string(child) + ")");
  backend_.Stop(ctx_, "baseline", seconds(3));
  EXPECT_FALSE(base::ProcessIdentity::Of(child));
  EXPECT_THAT(Calls(), ElementsAre("stop -t 3 baseline"));
  EXPECT_EQ(StatusOf("baseline"), SandboxStatus::kStopped);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(MicrosandboxLifecycleTest, StopEndsAGuestThatDoesNotShutDown) {
  SetStatus("Running");
  InstallActing({[] {}, [&] { SetStatus("Stopped"); }},
                "[ \"$2\" = --force ] || { echo 'error: timed out' >&2; exit 1; }");
  backend_.Stop(ctx_, "baseline", seconds(1));
  EXPECT_THAT(Calls(), ElementsAre("stop -t 1 baseline", "stop --force baseline"));
}

TEST_F(MicrosandboxLifecycleTest, StopWithNoPatienceAndKillAreTheSame) {
  SetStatus("Running");
  InstallActing({[&] { SetStatus("Stopped"); }});
  backend_.Kill(ctx_, "baseline");
  SetStatus("Running");
  InstallActing({[&] { SetStatus("Stopped"); }});
  backend_.Stop(ctx_, "baseline", seconds(0));
  EXPECT_THAT(Calls(), ElementsAre("stop --force baseline", "stop --force baseline"));
}

TEST_F(MicrosandboxLifecycleTest, AFailedKillIsAnError) {
  SetStatus("Running");
  Install("echo 'error: io error: denied' >&2; exit 1");
  EXPECT_MSB_ERROR(backend_.Kill(ctx_, "baseline"), ErrorKind::kIO,
                   "cannot kill sandbox 'baseline': ", "error: io error: denied");
}

TEST_F(MicrosandboxLifecycleTest, StopWaitsForTheRuntimeAndMayBeCancelledThere) {
  SetStatus("Running");
  const auto [ctx, cancel] = ctx_.WithCancel();
  // The runtime succeeds, but the sandbox stays in the status Draining.
  InstallActing({[&, cancel = cancel] {
    SetStatus("Draining");
    cancel();
  }});
  EXPECT_MSB_ERROR(backend_.Stop(ctx, "baseline", seconds(1)), ErrorKind::kCancelled, "cancelled");
}

TEST_F(MicrosandboxLifecycleTest, RemoveTakesAStoppedSandboxOnly) {
  SetStatus("Running");
  EXPECT_MSB_ERROR(backend_.Remove(ctx_, "baseline"), ErrorKind::kSandboxStillRunning,
                   "sandbox 'baseline' is running", "stop it first");
  EXPECT_THAT(Calls(), IsEmpty());
  SetStatus("Stopped");
  InstallActing({[&] { Execute("DELETE FROM sandbox"); }});
  backend_.Remove(ctx_, "baseline");
  EXPECT_THAT(Calls(), ElementsAre("remove baseline"));
}

TEST_F(MicrosandboxLifecycleTest, RemoveTakesACrashedSandboxAndOneOfASenselessConfiguration) {
  SetStatus("Running");
  Execute("INSERT INTO run (sandbox_id, pid, status) VALUES (1, 0, 'Running')");
  Execute("UPDATE sandbox SET config = '{'");
  InstallActing({[&] { Execute("DELETE FROM sandbox"); }});
  backend_.Remove(ctx_, "baseline");
}

TEST_F(MicrosandboxLifecycleTest, ARemoveThatRemovesNothingIsAnError) {
  Install("exit 0");
  EXPECT_MSB_ERROR(backend_.Remove(ctx_, "baseline"), ErrorKind::kIO,
                   "sandbox 'baseline', but it still exists", "msb remove --force");
}

TEST_F(MicrosandboxLifecycleTest, RefusesAnAbsentSandboxWithoutRunningTheRuntime) {
  EXPECT_MSB_ERROR(backend_.Start(ctx_, "gone", false), ErrorKind::kSandboxNotFound,
                   "no sandbox 'gone' in ", "msb.db");
  EXPECT_MSB_ERROR(backend_.Stop(ctx_, "gone", seconds(1)), ErrorKind::kSandboxNotFound,
                   "no sandbox 'gone' in ", "msb.db");
  EXPECT_MSB_ERROR(backend_.Kill(ctx_, "gone"), ErrorKind::kSandboxNotFound,
                   "no sandbox 'gone' in ", "msb.db");
  EXPECT_MSB_ERROR(backend_.Detach(ctx_, "gone"), ErrorKind::kSandboxNotFound,
                   "no sandbox 'gone' in ", "msb.db");
  EXPECT_MSB_ERROR(backend_.Remove(ctx_, "gone"), ErrorKind::kSandboxNotFound,
                   "no sandbox 'gone' in ", "msb.db");
  backend_.Detach(ctx_, "baseline");
  EXPECT_THAT(Calls(), IsEmpty());
}

TEST_F(MicrosandboxLifecycleTest, ExecRunsInASandboxThatRuns) {
  Install("shift 6; exec \"$@\"");
  SetStatus("Running");
  EXPECT_EQ(backend_.Exec(ctx_, "baseline", {"sh", "-c", "exit 5"}, {}).exit_code, 5);
  EXPECT_THAT(Calls(), ElementsAre("exec --quiet --no-tty --stream baseline -- sh -c exit 5"));
}

// The runtime would start it, and stop it again afterwards.
TEST_F(MicrosandboxLifecycleTest, ExecDoesNotStartASandbox) {
  EXPECT_MSB_ERROR(backend_.Exec(ctx_, "baseline", {"true"}, {}), ErrorKind::kIO,
                   "sandbox 'baseline', which is stopped", "start it first");
  EXPECT_MSB_ERROR(backend_.Exec(ctx_, "absent", {"true"}, {}), ErrorKind::kSandboxNotFound,
                   "no sandbox 'absent'");
  EXPECT_THAT(Calls(), IsEmpty());
}

TEST_F(MicrosandboxLifecycleTest, ExecEndsWithItsContext) {
  Install("sleep 1000");
  SetStatus("Running");
  EXPECT_MSB_ERROR(
      backend_.Exec(ctx_.WithTimeout(std::chrono::milliseconds(50)), "baseline", {"true"}, {}),
      ErrorKind::kCancelled, "deadline exceeded");
}

TEST_F(MicrosandboxLifecycleTest, TheConsoleIsTheLogOfTheKernel) {
  EXPECT_EQ(backend_.Console(ctx_, "baseline"), home_ / "sandboxes/baseline/logs/kernel.log");
  EXPECT_MSB_ERROR(backend_.Console(ctx_, "absent"), ErrorKind::kSandboxNotFound,
                   "no sandbox 'absent'");
}

}  // namespace
}  // namespace msb::vmm
