// SPDX-License-Identifier: Apache-2.0
//
// A backend that is not part of the library, that of examples/command_backend.h, with a shell
// script as the VMM. The script does what its guest should do, and then runs until it is asked to
// end.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <thread>

#include "examples/command_backend.h"
#include "src/base/process.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using example::CommandBackend;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kVmm = R"(
dir=$1 disk=$2 guests=$3 name=$4 cpus=$5 memory=$6
trap 'echo asked to end; exit 0' TERM
echo pid $$
if [ -e "$guests/$name" ]; then . "$guests/$name"; fi
echo up
for i in $(seq 3000); do sleep 0.02; done # Not for ever, whatever becomes of the test.
)";

constexpr const char* kDeaf = "trap '' TERM";

void AwaitTrue(const std::function<bool()>& condition) {
  const Context limit = Context::Background().WithTimeout(seconds(30));
  while (!condition()) {
    limit.Check();
    std::this_thread::sleep_for(milliseconds(2));
  }
}

class OwnBackendTest : public ::testing::Test {
 protected:
  OwnBackendTest() {
    MakeSparseFile(image_, 4 << 20, {{1 << 20, Noise(70'000, 7)}});
    WriteFile(dir_ / "vmm", kVmm);
    fs::create_directories(dir_ / "guests");
  }

  // Ends the sandboxes that a test has left running.
  ~OwnBackendTest() override {
    for (const auto& sandbox : ListSandboxes(ctx_, client_)) sandbox.Kill(ctx_);
  }

  // disk is the placeholder that the command passes to the VMM.
  Client MakeClient(const std::string& disk, DiskFormat format) const {
    return MakeClient(format, {"sh", dir_ / "vmm", "{dir}", disk, dir_ / "guests", "{name}",
                               "{cpus}", "{memory}"});
  }

  Client MakeClient(DiskFormat format, const std::vector<std::string>& command,
                    const std::function<bool(const vmm::SandboxRecord&)>& is_up = SaysUp) const {
    Config config{.home = dir_ / "home", .backend = "local", .upper_format = format};
    config.backend = std::make_shared<CommandBackend>(Client(config).backend(), command, is_up);
    return Client(std::move(config));
  }

  static bool SaysUp(const vmm::SandboxRecord& sandbox) {
    const std::string log = ReadFile(sandbox.upper->path.parent_path() / "vmm.log");
    return log.find("\nup\n") != std::string::npos;
  }

  // Sets what the guest of this sandbox does when it boots: a shell script.
  void SetGuest(const std::string& name, const std::string& script) const {
    WriteFile(dir_ / "guests" / name, script + "\n");
  }

  Sandbox Create(const std::string& name, std::vector<SandboxOption> more = {}) {
    more.push_back(WithImage(image_));
    return CreateSandbox(ctx_, name, more, client_);
  }

  SandboxStatus StatusOf(const std::string& name) {
    return GetSandbox(ctx_, name, client_).Status();
  }

  std::string LogOf(const std::string& name) const {
    return ReadFile(sandboxes_ / name / "vmm.log");
  }

  pid_t PidOf(const std::string& name) const { return std::stoi(LogOf(name).substr(4)); }

  std::string DiskOf(const std::string& name) {
    return ReadFile(GetSandbox(ctx_, name, client_).Upper().path);
  }

  const Context ctx_ = Context::Background().WithTimeout(seconds(120));
  TempDir dir_;
  const fs::path image_ = dir_ / "base.img";
  const fs::path sandboxes_ = dir_ / "home/sandboxes";
  Client client_ = MakeClient("{disk}", DiskFormat::kRaw);
};

TEST_F(OwnBackendTest, PreparesOnceAndBootsWorkersFromTheSnapshot) {
  SetGuest("baseline", R"(printf installed | dd of="$disk" bs=512 seek=1 conv=notrunc)");
  for (const std::string name : {"one", "two"}) {
    SetGuest(name, R"(dd if="$disk" bs=512 skip=1 count=1 | tr -d '\0'
                      printf "of $name" | dd of="$disk" bs=512 seek=2 conv=notrunc)");
  }
  Sandbox baseline = Create("baseline");
  EXPECT_EQ(StatusOf("baseline"), SandboxStatus::kRunning);
  baseline.Stop(ctx_);
  EXPECT_EQ(StatusOf("baseline"), SandboxStatus::kStopped);
  const auto snapshot =
      Snapshot::Create(ctx_, "baseline", {.name = "s", .record_integrity = true}, client_);

  Sandbox one = CreateSandbox(ctx_, "one", {WithSnapshot("s")}, client_);
  Sandbox two = CreateSandbox(ctx_, "two", {WithSnapshot("s")}, client_);
  EXPECT_EQ(StatusOf("one"), SandboxStatus::kRunning);
  EXPECT_EQ(StatusOf("two"), SandboxStatus::kRunning);
  one.Kill(ctx_);
  EXPECT_EQ(StatusOf("two"), SandboxStatus::kRunning);
  two.Close();
  for (const std::string name : {"one", "two"}) {
    EXPECT_THAT(LogOf(name), HasSubstr("installed")) << "the worker did not find it";
    EXPECT_EQ(DiskOf(name).substr(1024, 6), "of " + name);
    EXPECT_EQ(DiskOf(name).substr(1 << 20, 70'000), Noise(70'000, 7));
  }
  EXPECT_EQ(DiskOf("baseline").substr(1024, 6), std::string(6, '\0'));
  EXPECT_EQ(snapshot.Verify(ctx_).upper.kind, "verified");
}

TEST_F(OwnBackendTest, Qcow2DisksAreChainsThatTheVmmIsGivenAsBlockNodes) {
  const std::string worker = R"(a "worker" {disk})";
  const std::string write = R"(qemu-io -c "write -P $byte ${byte}M 64k" "json:$disk" || exit 1)";
  SetGuest("baseline", "byte=1; " + write);
  SetGuest(worker, "byte=2; " + write + "\n" +
                       R"(qemu-io -c 'read -P 1 1M 64k' -c 'read -P 0 3M 64k' "json:$disk")");
  Client client = MakeClient("{blockdev}", DiskFormat::kQcow2);
  CreateSandbox(ctx_, "baseline", {WithImage(image_)}, client).Close();
  const auto first = Snapshot::Create(ctx_, "baseline", {.name = "first"}, client);
  Sandbox sandbox = CreateSandbox(ctx_, worker, {WithSnapshot("first")}, client);
  EXPECT_THAT(LogOf(worker), HasSubstr("read 65536/65536"));
  EXPECT_THAT(LogOf(worker), Not(HasSubstr("failed")));
  sandbox.Close();
  const auto second = Snapshot::Create(ctx_, worker, {.name = "second"}, client);
  EXPECT_EQ(second.Parent(), first.Digest());
  EXPECT_LT(second.SizeBytes(), 1U << 20);
  Snapshot::Flatten(ctx_, "second", dir_ / "flat", {}, client);
  EXPECT_EQ(ReadFile(dir_ / "flat").substr(1 << 20, 65'536), std::string(65'536, 1));
  EXPECT_EQ(ReadFile(dir_ / "flat").substr(2 << 20, 65'536), std::string(65'536, 2));
  // The sandbox continues on an overlay of its own.
  StartSandbox(ctx_, worker, client).Close();
}

TEST_F(OwnBackendTest, BlockNodesIgnoreTheBackingFileInAHeader) {
  Client client = MakeClient("{blockdev}", DiskFormat::kQcow2);
  CreateSandbox(ctx_, "a", {WithImage(image_)}, client).Close();
  vmm::SandboxRecord sandbox = client.backend()->Inspect(ctx_, "a");
  ASSERT_EQ(sandbox.backing.size(), 1U);
  // Another file than the one that the header names, which is gone.
  MakeSparseFile(dir_ / "other", 4 << 20, {{0, std::string(4096, 'x')}});
  fs::remove(sandbox.backing[0].disk.path);
  sandbox.backing[0].disk.path = dir_ / "other";
  const auto run =
      RunCommand("qemu-io -c 'read -P 0x78 0 4k' 'json:" + example::BlockNode(sandbox) + "'");
  EXPECT_EQ(run.status, 0) << run.output;
  EXPECT_THAT(run.output, HasSubstr("read 4096/4096"));
  EXPECT_THAT(run.output, Not(HasSubstr("failed")));
}

TEST_F(OwnBackendTest, PlaceholdersAreFilledOnce) {
  const vmm::SandboxRecord sandbox{
      .name = "{disk}", .upper = Disk{"/s/a/upper.ext4"}, .labels = {{"vmm.cpus", "4"}}};
  EXPECT_THAT(
      example::Fill({"{name}", "-smp={cpus}", "{dir}/x{memory}", "{other}", "{", "{{disk}}"},
                    sandbox),
      ElementsAre("{disk}", "-smp=4", "/s/a/x512", "{other}", "{", "{/s/a/upper.ext4}"));
}

TEST_F(OwnBackendTest, KeepsTheSizeOfItsMachine) {
  SetGuest("a", "echo $cpus CPUs, $memory MiB");
  SetGuest("b", "echo $cpus CPUs, $memory MiB");
  Create("a", {WithCPUs(3), WithMemory(96)}).Close();
  EXPECT_THAT(LogOf("a"), HasSubstr("3 CPUs, 96 MiB"));
  StartSandbox(ctx_, "a", client_).Close();
  EXPECT_THAT(LogOf("a"), HasSubstr("3 CPUs, 96 MiB"));
  Create("b").Close();
  EXPECT_THAT(LogOf("b"), HasSubstr("1 CPUs, 512 MiB"));
}

TEST_F(OwnBackendTest, WhileItRunsNothingElseUsesItsDisk) {
  Client client = MakeClient("{blockdev}", DiskFormat::kQcow2);
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  const auto before = ListTree(dir_ / "home");
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", client), ErrorKind::kSandboxStillRunning,
                   "sandbox 'a' is running", "stop it first");
  EXPECT_MSB_ERROR(RemoveSandbox(ctx_, "a", client), ErrorKind::kSandboxStillRunning,
                   "sandbox 'a' is running", "stop it first");
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_)}, client),
                   ErrorKind::kSandboxAlreadyExists, "sandbox 'a' already exists",
                   "replace it with WithReplace");
  const auto describe = [](const vmm::SandboxRecord&) -> vmm::SealSpec {
    ADD_FAILURE() << "described while it runs";
    return {};
  };
  const auto publish = [](const Disk&) { ADD_FAILURE() << "published while it runs"; };
  EXPECT_MSB_ERROR(client.backend()->Seal(ctx_, "a", describe, publish),
                   ErrorKind::kSandboxStillRunning, "sandbox 'a' is running", "stop it first");
  EXPECT_EQ(ListTree(dir_ / "home"), before);
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "a", {.name = "s"}, client),
                   ErrorKind::kSnapshotSandboxRunning, "sandbox 'a' is running", "stop it first");
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "a", {.name = "s", .live = LiveSnapshot::kAuto}, client),
                   ErrorKind::kUnsupportedOperation, "sandbox 'a' while it runs", "stop it first");
  EXPECT_FALSE(fs::exists(dir_ / "home/snapshots/s"));
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  sandbox.Close();
  RemoveSandbox(ctx_, "a", client);
  EXPECT_THAT(ListTree(sandboxes_), IsEmpty());
}

TEST_F(OwnBackendTest, StopAsksAndAfterTheTimeOutKills) {
  Sandbox polite = Create("polite");
  polite.Stop(ctx_, {WithStopTimeout(milliseconds::max())});
  EXPECT_THAT(LogOf("polite"), HasSubstr("asked to end"));
  polite.Stop(ctx_);
  EXPECT_EQ(StatusOf("polite"), SandboxStatus::kStopped);

  SetGuest("deaf", kDeaf);
  Sandbox deaf = Create("deaf");
  const pid_t pid = PidOf("deaf");
  EXPECT_MSB_ERROR(deaf.Stop(ctx_.WithTimeout(milliseconds(50))), ErrorKind::kCancelled,
                   "deadline exceeded");
  EXPECT_EQ(StatusOf("deaf"), SandboxStatus::kRunning);
  deaf.Stop(ctx_, {WithStopTimeout(milliseconds(50))});
  EXPECT_EQ(StatusOf("deaf"), SandboxStatus::kStopped);
  AwaitTrue([&] { return !base::ProcessIdentity::Of(pid); });
}

TEST_F(OwnBackendTest, AVmmHearsTheSignalThatItsProgramBlocks) {
  Client client = MakeClient(DiskFormat::kRaw, {"sleep", "1000"}, {});
  sigset_t term;
  sigset_t before;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, &before);
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  // Without the signal, this would not end.
  sandbox.Stop(ctx_, {WithStopTimeout(milliseconds::max())});
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
}

TEST_F(OwnBackendTest, AVmmThatEndsByItselfHasCrashed) {
  Sandbox sandbox = Create("a");
  Sandbox other = Create("b");
  kill(PidOf("a"), SIGKILL);
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_), SandboxStatus::kCrashed);
  EXPECT_EQ(StatusOf("b"), SandboxStatus::kRunning);
  for (const auto& handle : ListSandboxes(ctx_, client_)) {
    EXPECT_EQ(handle.Status() == SandboxStatus::kCrashed, handle.Name() == "a");
  }
  Snapshot::Create(ctx_, "a", {.name = "s"}, client_);
  Sandbox again = StartSandbox(ctx_, "a", client_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  kill(PidOf("a"), SIGKILL);
  EXPECT_EQ(again.WaitUntilStopped(ctx_), SandboxStatus::kCrashed);
  RemoveSandbox(ctx_, "a", client_);
  EXPECT_MSB_ERROR(GetSandbox(ctx_, "a", client_), ErrorKind::kSandboxNotFound, "no sandbox 'a'");
}

TEST_F(OwnBackendTest, ACrashedQcow2SandboxCanBeSealed) {
  Client client = MakeClient("{blockdev}", DiskFormat::kQcow2);
  Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(image_)}, client);
  kill(PidOf("a"), SIGKILL);
  EXPECT_EQ(sandbox.WaitUntilStopped(ctx_), SandboxStatus::kCrashed);
  const auto snapshot = Snapshot::Create(ctx_, "a", {.name = "s"}, client);
  EXPECT_EQ(GetSandbox(ctx_, "a", client).Upper().base_digest, snapshot.Digest());
  // It does not run, so a backend without live snapshots will do.
  const auto next = Snapshot::Create(ctx_, "a", {.name = "t", .live = LiveSnapshot::kAuto}, client);
  EXPECT_EQ(next.Consistency(), "stopped");
  EXPECT_EQ(next.Parent(), snapshot.Digest());
}

TEST_F(OwnBackendTest, AFailedBootLeavesNothing) {
  SetGuest("a", "echo no such kernel >&2; exit 3");
  try {
    Create("a");
    ADD_FAILURE() << "booted";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInvalidConfig);
    EXPECT_THAT(e.what(), HasSubstr("no such kernel"));
  }
  EXPECT_THAT(ListTree(sandboxes_), IsEmpty());
  Client nowhere = MakeClient(DiskFormat::kRaw, {dir_ / "no-such-vmm"});
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "a", {WithImage(image_)}, nowhere), ErrorKind::kIO,
                   "/no-such-vmm");
  EXPECT_THAT(ListTree(sandboxes_), IsEmpty());
}

TEST_F(OwnBackendTest, ACancelledBootLeavesNothing) {
  SetGuest("a", std::string(kDeaf) + "; echo $$ > \"$guests/pid\"; sleep 60");
  auto [ctx, cancel] = ctx_.WithCancel();
  const std::jthread canceller([&, stop = cancel] {
    AwaitTrue(
        [&] { return fs::exists(dir_ / "guests/pid") && fs::file_size(dir_ / "guests/pid") > 0; });
    stop();
  });
  EXPECT_MSB_ERROR(CreateSandbox(ctx, "a", {WithImage(image_)}, client_), ErrorKind::kCancelled,
                   "cancelled");
  EXPECT_THAT(ListTree(sandboxes_), IsEmpty());
  const pid_t pid = std::stoi(ReadFile(dir_ / "guests/pid"));
  AwaitTrue([&] { return !base::ProcessIdentity::Of(pid); });
}

TEST_F(OwnBackendTest, AFailedStartLeavesItStopped) {
  Create("a").Close();
  const std::string disk = DiskOf("a");
  SetGuest("a", "exit 3");
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", client_), ErrorKind::kInvalidConfig,
                   "the VMM of 'a' ended");
  Client nowhere = MakeClient(DiskFormat::kRaw, {dir_ / "no-such-vmm"});
  EXPECT_MSB_ERROR(StartSandbox(ctx_, "a", nowhere), ErrorKind::kIO, "/no-such-vmm");
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  EXPECT_EQ(DiskOf("a"), disk);
  SetGuest("a", "");
  const Sandbox sandbox = StartSandbox(ctx_, "a", client_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
}

TEST_F(OwnBackendTest, ReplacingEndsTheOldOneFirst) {
  SetGuest("a", R"(printf 'the old one' | dd of="$disk" bs=512 conv=notrunc)");
  Sandbox old = Create("a", {WithReplace()});
  const pid_t pid = PidOf("a");
  SetGuest("a", "");
  const Sandbox now = Create("a", {WithReplace()});
  AwaitTrue([&] { return !base::ProcessIdentity::Of(pid); });
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_EQ(DiskOf("a"), ReadFile(image_));
  old.Close();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
}

TEST_F(OwnBackendTest, OutlivesACrashOfItsProgramAndIsStoppedByAnother) {
  const pid_t child = fork();
  if (child == 0) {
    // The process ends without closing anything, as if killed.
    auto* leaked = new Sandbox(Create("a"));
    _exit(leaked == nullptr ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "a", {.name = "s"}, client_),
                   ErrorKind::kSnapshotSandboxRunning, "sandbox 'a' is running", "stop it first");
  GetSandbox(ctx_, "a", client_).Stop(ctx_);
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kStopped);
  EXPECT_THAT(LogOf("a"), HasSubstr("asked to end"));
}

TEST_F(OwnBackendTest, ThreadsBootStopAndRemoveTheirOwn) {
  const auto run = [this](const std::string& name) {
    Sandbox sandbox = Create(name);
    EXPECT_EQ(StatusOf(name), SandboxStatus::kRunning);
    sandbox.Stop(ctx_);
    StartSandbox(ctx_, name, client_).Kill(ctx_);
    RemoveSandbox(ctx_, name, client_);
  };
  std::vector<std::jthread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&run, name = "s" + std::to_string(i)] {
      try {
        for (int round = 0; round < 5; ++round) run(name);
      } catch (const Error& e) {
        ADD_FAILURE() << e.what();
      }
    });
  }
  threads.clear();
  EXPECT_THAT(ListTree(sandboxes_), IsEmpty());
}

TEST_F(OwnBackendTest, ADetachedSandboxKeepsRunning) {
  Sandbox sandbox = Create("a");
  sandbox.Detach(ctx_);
  Create("b", {WithDetached()}).Close();
  EXPECT_EQ(StatusOf("a"), SandboxStatus::kRunning);
  EXPECT_EQ(StatusOf("b"), SandboxStatus::kRunning);
  EXPECT_MSB_ERROR(client_.backend()->Detach(ctx_, "c"), ErrorKind::kSandboxNotFound,
                   "no sandbox 'c'");
}

// Has every sandbox that it is asked for, and records their names.
class BoundlessBackend : public vmm::Backend {
 public:
  std::vector<std::string> names;

  std::string_view Name() const override { return "boundless"; }
  vmm::SandboxRecord Inspect(const Context& /*ctx*/, const std::string& name) override {
    names.push_back(name);
    return {.name = name};
  }
  std::vector<vmm::SandboxRecord> List(const Context& /*ctx*/) override { return {}; }
  vmm::SandboxRecord Create(const Context& ctx, const vmm::SandboxSpec& spec) override {
    return Inspect(ctx, spec.name);
  }
  vmm::SandboxRecord Start(const Context& ctx, const std::string& name,
                           bool /*detached*/) override {
    return Inspect(ctx, name);
  }
  void Stop(const Context& ctx, const std::string& name, milliseconds /*timeout*/) override {
    Inspect(ctx, name);
  }
  void Kill(const Context& ctx, const std::string& name) override { Inspect(ctx, name); }
  void Detach(const Context& ctx, const std::string& name) override { Inspect(ctx, name); }
  void Remove(const Context& ctx, const std::string& name) override { Inspect(ctx, name); }
};

TEST(OwnBackendClientTest, BackendIsNotAskedForNamesThatLeadOutOfADirectory) {
  const TempDir dir;
  const Context ctx = Context::Background();
  const auto backend = std::make_shared<BoundlessBackend>();
  Client client({.home = dir / "home", .backend = backend});
  for (const std::string& name :
       {std::string("../a"), std::string("a/b"), std::string(".."), std::string(".hidden"),
        std::string(), std::string("a\0b", 3), std::string(256, 'a')}) {
    EXPECT_MSB_ERROR(GetSandbox(ctx, name, client), ErrorKind::kSandboxNotFound, "no sandbox '");
    EXPECT_MSB_ERROR(StartSandbox(ctx, name, client), ErrorKind::kSandboxNotFound, "no sandbox '");
    EXPECT_MSB_ERROR(RemoveSandbox(ctx, name, client), ErrorKind::kSandboxNotFound, "no sandbox '");
    EXPECT_MSB_ERROR(Snapshot::Create(ctx, name, {.name = "s"}, client),
                     ErrorKind::kSandboxNotFound, "no sandbox '");
  }
  EXPECT_THAT(backend->names, IsEmpty());
  EXPECT_EQ(GetSandbox(ctx, "a b", client).Name(), "a b");
  RemoveSandbox(ctx, "a b", client);
  EXPECT_THAT(backend->names, ElementsAre("a b", "a b"));
}

// The example relies on this.
TEST(OwnBackendClientTest, ItsBackendServesAnotherAndOutlivesIt) {
  const TempDir dir;
  const Context ctx = Context::Background();
  auto first = std::make_unique<Client>(LocalClient(dir / "home"));
  MakeStoppedSandbox(*first, "a", dir / "base.img");
  Client second({.home = dir / "other", .backend = first->backend()});
  first.reset();
  EXPECT_EQ(second.backend()->Name(), "local");
  EXPECT_EQ(GetSandbox(ctx, "a", second).Upper().path, dir / "home/sandboxes/a/upper.ext4");
  Snapshot::Create(ctx, "a", {.name = "s"}, second);
  EXPECT_TRUE(fs::exists(dir / "other/snapshots/s"));
}

}  // namespace
}  // namespace msb::test
