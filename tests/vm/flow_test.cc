// SPDX-License-Identifier: Apache-2.0
//
// The main use of the library with VMs, for both disk formats: install once, snapshot, boot many.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/docker_registry.h"
#include "tests/vm/guest.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;

class VmFlowTest : public GuestTest, public ::testing::WithParamInterface<std::string> {
 protected:
  Client ClientFor(const std::string& jobs = "") const {
    Config config = ConfigFor(jobs);
    config.upper_format = GetParam() == "raw" ? DiskFormat::kRaw : DiskFormat::kQcow2;
    return Client(std::move(config));
  }

  // Stops the sandbox, and expects its guest to have shut down by itself.
  void Stop(Sandbox& sandbox, int boot = 1) {
    sandbox.Stop(ctx_, {WithStopTimeout(std::chrono::seconds(60))});
    EXPECT_EQ(StatusOf(sandbox.Name()), SandboxStatus::kStopped);
    EXPECT_THAT(ConsoleOf(ClientFor(), sandbox.Name(), boot), Contains("GUEST-DOWN"));
    sandbox.Close();
  }

  // Boots a new sandbox whose guest writes one word, waits until it has, and stops it.
  void WriteWord(const std::string& name, const SandboxOption& source, const std::string& job) {
    Client client = ClientFor("msb.write=" + job);
    Sandbox sandbox = CreateSandbox(ctx_, name, {source}, client);
    WaitForConsole(ctx_, client, name, "GUEST-READY");
    Stop(sandbox);
  }

  SnapshotArtifact TakeSnapshot(const std::string& sandbox, const std::string& name) {
    Client client = ClientFor();
    auto snapshot =
        Snapshot::Create(ctx_, sandbox, {.name = name, .record_integrity = true}, client);
    EXPECT_EQ(snapshot.Format(), GetParam());
    EXPECT_EQ(snapshot.Verify(ctx_).upper.kind, "verified");
    return snapshot;
  }
};

INSTANTIATE_TEST_SUITE_P(Formats, VmFlowTest, ::testing::Values("raw", "qcow2"),
                         [](const auto& test) { return test.param; });

TEST_P(VmFlowTest, WorkersOfOneSnapshotShareItsFilesAndSeeNothingOfEachOther) {
  WriteWord("baseline", WithImage(image_), "0:marker");
  const auto snapshot = TakeSnapshot("baseline", "after-install");

  Client first = ClientFor("msb.write=1:one");
  Client second = ClientFor("msb.write=1:two");
  Client reader = ClientFor();
  {
    Sandbox worker1 = CreateSandbox(ctx_, "worker-1", {WithSnapshot("after-install")}, first);
    Sandbox worker2 = CreateSandbox(ctx_, "worker-2", {WithSnapshot(snapshot.Path())}, second);
    const Lines one = WaitForConsole(ctx_, first, "worker-1", "GUEST-READY");
    const Lines two = WaitForConsole(ctx_, second, "worker-2", "GUEST-READY");
    EXPECT_THAT(SlotsFound(one), ElementsAre("marker", "-", "-", "-"));
    EXPECT_THAT(SlotsFound(two), ElementsAre("marker", "-", "-", "-"));
    EXPECT_THAT(SlotsLeft(one), ElementsAre("marker", "one", "-", "-"));
    EXPECT_THAT(SlotsLeft(two), ElementsAre("marker", "two", "-", "-"));
    Stop(worker1);
    Stop(worker2);
  }
  EXPECT_EQ(snapshot.Verify(ctx_).upper.kind, "verified");

  Sandbox worker1 = StartSandbox(ctx_, "worker-1", reader);
  Sandbox worker2 = StartSandbox(ctx_, "worker-2", reader);
  Sandbox worker3 = CreateSandbox(ctx_, "worker-3", {WithSnapshot("after-install")}, reader);
  EXPECT_THAT(SlotsFound(WaitForConsole(ctx_, reader, "worker-1", "GUEST-READY", 2)),
              ElementsAre("marker", "one", "-", "-"));
  EXPECT_THAT(SlotsFound(WaitForConsole(ctx_, reader, "worker-2", "GUEST-READY", 2)),
              ElementsAre("marker", "two", "-", "-"));
  EXPECT_THAT(SlotsFound(WaitForConsole(ctx_, reader, "worker-3", "GUEST-READY")),
              ElementsAre("marker", "-", "-", "-"));
  Stop(worker1, 2);
  Stop(worker2, 2);
  Stop(worker3);
  EXPECT_EQ(snapshot.Verify(ctx_).upper.kind, "verified");
}

TEST_P(VmFlowTest, AChainOfSnapshotsBootsOnAnotherMachine) {
  fs::path image = image_;
  if (GetParam() == "qcow2") {
    image = dir_ / "base.qcow2";
    ASSERT_EQ(RunCommand("qemu-img create -q -f qcow2 '" + image.native() + "' 64M").status, 0);
  }
  WriteWord("baseline", WithImage(image), "0:marker");
  const auto first = TakeSnapshot("baseline", "first");
  WriteWord("worker-1", WithSnapshot("first"), "1:second");
  const auto second = TakeSnapshot("worker-1", "second");
  WriteWord("worker-2", WithSnapshot("second"), "2:third");
  const auto third = TakeSnapshot("worker-2", "third");
  EXPECT_EQ(first.Parent(), std::nullopt);
  EXPECT_EQ(second.Parent(), first.Digest());
  EXPECT_EQ(third.Parent(), second.Digest());

  const std::string archive = dir_ / "third.tar.zst";
  Client exporter = ClientFor();
  Snapshot::Export(ctx_, "third", archive, {.with_parents = true, .with_image = true}, exporter);
  // The other machine has no files of this one.
  fs::rename(home_, dir_ / "gone");
  fs::remove(image);
  Client elsewhere = ClientFor();
  const auto imported = Snapshot::Import(ctx_, archive, "", elsewhere);
  EXPECT_EQ(imported.Digest(), third.Digest());
  EXPECT_EQ(imported.Open(ctx_).Verify(ctx_).upper.kind, "verified");
  Sandbox worker = CreateSandbox(ctx_, "worker", {WithSnapshot(imported.Path())}, elsewhere);
  EXPECT_THAT(SlotsFound(WaitForConsole(ctx_, elsewhere, "worker", "GUEST-READY")),
              ElementsAre("marker", "second", "third", "-"));
  Stop(worker);
}

TEST_P(VmFlowTest, ARestoredSandboxBootsWithWhatTheSnapshotHas) {
  WriteWord("baseline", WithImage(image_), "0:first");
  TakeSnapshot("baseline", "early");
  Client writer = ClientFor("msb.write=1:second");
  Client reader = ClientFor();
  {
    Sandbox sandbox = StartSandbox(ctx_, "baseline", writer);
    WaitForConsole(ctx_, writer, "baseline", "GUEST-READY", 2);
    EXPECT_MSB_ERROR(Snapshot::Restore(ctx_, "baseline", "early", reader),
                     ErrorKind::kSandboxStillRunning, "sandbox 'baseline' is running");
    Stop(sandbox, 2);
  }
  TakeSnapshot("baseline", "late");
  int boot = 3;
  for (const std::string snapshot : {"early", "late"}) {
    SCOPED_TRACE(snapshot);
    Snapshot::Restore(ctx_, "baseline", snapshot, reader);
    Sandbox sandbox = StartSandbox(ctx_, "baseline", reader);
    EXPECT_THAT(SlotsFound(WaitForConsole(ctx_, reader, "baseline", "GUEST-READY", boot)),
                ElementsAre("first", snapshot == "late" ? "second" : "-", "-", "-"));
    Stop(sandbox, boot++);
  }
}

class VmRegistryTest : public VmFlowTest {};

// Disks that are not qcow2 have no chains.
INSTANTIATE_TEST_SUITE_P(Formats, VmRegistryTest, ::testing::Values("qcow2"),
                         [](const auto& test) { return test.param; });

// Five generations, each sealed in constant time, go through a registry with their image.
TEST_P(VmRegistryTest, AChainOfFiveBootsFromARegistry) {
  if (!DockerRegistry::IsInstalled()) GTEST_SKIP() << "docker-registry is not installed";
  const std::vector<std::string> words = {"one", "two", "three", "four"};
  std::string previous;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string sandbox = "worker-" + words[i];
    WriteWord(sandbox, previous.empty() ? WithImage(image_) : WithSnapshot(previous),
              std::to_string(i) + ":" + words[i]);
    TakeSnapshot(sandbox, words[i]);
    previous = words[i];
  }
  // The fifth overwrites what the first has written.
  WriteWord("worker-five", WithSnapshot(previous), "0:five");
  const SnapshotArtifact head = TakeSnapshot("worker-five", "five");

  DockerRegistry registry;
  const std::string reference = registry.address() + "/team/five";
  Client sender = ClientFor();
  Snapshot::Push(ctx_, "five", reference, {.with_parents = true, .with_image = true}, sender);
  // The other machine has no files of this one.
  fs::rename(home_, dir_ / "gone");
  fs::remove(image_);
  Client elsewhere = ClientFor();
  const SnapshotHandle pulled = Snapshot::Pull(ctx_, reference, "", {}, elsewhere);
  EXPECT_EQ(pulled.Digest(), head.Digest());
  EXPECT_EQ(pulled.Open(ctx_).Verify(ctx_).upper.kind, "verified");
  EXPECT_EQ(Snapshot::List(ctx_, elsewhere).size(), 5U);
  const auto find = [&](const SnapshotHandle& snapshot, const std::string& sandbox) {
    Sandbox worker = CreateSandbox(ctx_, sandbox, {WithSnapshot(snapshot.Path())}, elsewhere);
    auto slots = SlotsFound(WaitForConsole(ctx_, elsewhere, sandbox, "GUEST-READY"));
    Stop(worker);
    return slots;
  };
  EXPECT_THAT(find(pulled, "worker"), ElementsAre("five", "two", "three", "four"));
  const SnapshotHandle parent = Snapshot::Get(ctx_, pulled.ParentDigest().value_or(""), elsewhere);
  EXPECT_THAT(find(parent, "older"), ElementsAre("one", "two", "three", "four"));
}

}  // namespace
}  // namespace msb::test
