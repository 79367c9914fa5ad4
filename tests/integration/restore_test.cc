// SPDX-License-Identifier: Apache-2.0
//
// Restore: puts a stopped sandbox back to a snapshot.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "src/base/file.h"
#include "tests/support/mounts.h"
#include "tests/support/sandbox_disk.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kRestoreMiB = 1 << 20;
constexpr std::uint64_t kRestoredBytes = 4 * kRestoreMiB;

class RestoreTest : public ::testing::Test {
 protected:
  RestoreTest() {
    MakeSparseFile(dir_ / "base.img", kRestoredBytes, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "cow", {WithImage(dir_ / "base.img")}, cow_).Close();
    CreateSandbox(ctx_, "raw", {WithImage(dir_ / "base.img")}, raw_).Close();
  }

  Client ClientFor(DiskFormat format, const fs::path& sandboxes = {}) const {
    Config config{.home = dir_ / "home",
                  .backend = "local",
                  .upper_format = format,
                  .log = [](std::string_view message) { ADD_FAILURE() << message; }};
    if (!sandboxes.empty()) config.sandboxes_dir = sandboxes;
    return Client(std::move(config));
  }

  fs::path DirectoryOf(const std::string& sandbox) const {
    return dir_ / "home/sandboxes" / sandbox;
  }

  // Returns what is in the sandbox's directory.
  std::map<std::string, std::string> FilesOf(const std::string& sandbox) const {
    return ListTree(DirectoryOf(sandbox));
  }

  vmm::SandboxRecord RecordOf(const std::string& sandbox) const {
    return cow_.backend()->Inspect(ctx_, sandbox);
  }

  // Writes a byte at this many MiB, and makes a snapshot. Returns the content of the disk.
  std::string Step(const std::string& sandbox, int byte, const std::string& name) {
    WriteAsGuest(sandbox, byte, static_cast<std::uint64_t>(byte) * kRestoreMiB, cow_);
    Snapshot::Create(ctx_, sandbox, {.name = name, .record_integrity = true}, cow_);
    return DiskOf(sandbox, cow_);
  }

  void Restore(const std::string& sandbox, const std::string& snapshot) {
    Snapshot::Restore(ctx_, sandbox, snapshot, cow_);
  }

  // Expects the sandbox's directory to hold the record and the files of its disk, and nothing else,
  // and its upper to be a writable file of its own.
  void ExpectTidy(const std::string& sandbox) {
    const vmm::SandboxRecord record = RecordOf(sandbox);
    std::set<std::string> expected = {"sandbox.json", record.upper->path.filename()};
    for (const BackingFile& file : record.backing) expected.insert(file.name);
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(DirectoryOf(sandbox))) {
      found.insert(entry.path().filename());
    }
    EXPECT_EQ(found, expected);
    const auto stamp = base::StampOf(record.upper->path);
    ASSERT_TRUE(stamp);
    EXPECT_EQ(stamp->links, 1U);
    EXPECT_EQ(stamp->mode & 0600, 0600U);
  }

  // Expects the call to throw, and the sandbox to be as it was before.
  void ExpectUnchanged(const std::string& sandbox, ErrorKind kind,
                       const std::function<void()>& call,
                       std::initializer_list<std::string> named) {
    const auto before = FilesOf(sandbox);
    try {
      call();
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
      EXPECT_TRUE(Names(e.what(), named));
    }
    EXPECT_EQ(FilesOf(sandbox), before);
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client cow_ = ClientFor(DiskFormat::kQcow2);
  Client raw_ = ClientFor(DiskFormat::kRaw);
};

TEST_F(RestoreTest, GoesBackAndForthInAChain) {
  std::vector<std::string> contents;
  for (const int i : {1, 2, 3}) contents.push_back(Step("cow", i, "s" + std::to_string(i)));
  WriteAsGuest("cow", 9, 0, cow_);
  for (const int i : {1, 3, 2, 2}) {
    SCOPED_TRACE(i);
    const std::string name = "s" + std::to_string(i);
    Restore("cow", name);
    EXPECT_TRUE(DiskOf("cow", cow_) == contents[static_cast<std::size_t>(i) - 1]);
    EXPECT_EQ(RecordOf("cow").snapshot_digest, Snapshot::Get(ctx_, name, cow_).Digest());
    ExpectTidy("cow");
    StartSandbox(ctx_, "cow", cow_).Stop(ctx_);
    WriteAsGuest("cow", 9, 0, cow_);
  }
  for (const char* name : {"s1", "s2", "s3"}) {
    EXPECT_EQ(Snapshot::Open(ctx_, name, cow_).Verify(ctx_).upper.kind, "verified") << name;
  }
}

TEST_F(RestoreTest, TheNextSnapshotDescendsFromTheRestoredOne) {
  const std::string first = Step("cow", 1, "s1");
  Step("cow", 2, "s2");
  Restore("cow", "s1");
  Snapshot::Create(ctx_, "cow", {.name = "next"}, cow_);
  const SnapshotArtifact next = Snapshot::Open(ctx_, "next", cow_);
  EXPECT_EQ(next.Parent(), Snapshot::Get(ctx_, "s1", cow_).Digest());
  EXPECT_EQ(next.Format(), "qcow2");
  Snapshot::Flatten(ctx_, "next", dir_ / "flat", {}, cow_);
  EXPECT_TRUE(ReadFile(dir_ / "flat") == first);
}

TEST_F(RestoreTest, ProtectsTheSnapshotThatTheSandboxIsBackedByNow) {
  Step("cow", 1, "s1");
  Step("cow", 2, "s2");
  Restore("cow", "s1");
  Snapshot::Remove(ctx_, "s2", false, cow_);
  EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, "s1", false, cow_), ErrorKind::kSnapshotHasChildren,
                   "backed by s1", "cow");
}

TEST_F(RestoreTest, CopiesTheSnapshotOfARawDisk) {
  WriteAsGuest("raw", 1, kRestoreMiB, raw_);
  Snapshot::Create(ctx_, "raw", {.name = "s"}, raw_);
  const std::string content = DiskOf("raw", raw_);
  for (int i = 0; i < 2; ++i) {
    WriteAsGuest("raw", 2, kRestoreMiB, raw_);
    Restore("raw", "s");
    EXPECT_TRUE(DiskOf("raw", raw_) == content);
    EXPECT_EQ(RecordOf("raw").upper->format, DiskFormat::kRaw);
    ExpectTidy("raw");
    StartSandbox(ctx_, "raw", raw_).Stop(ctx_);
    Snapshot::Create(ctx_, "raw", {.name = "next" + std::to_string(i)}, raw_);
  }
  EXPECT_EQ(Snapshot::Open(ctx_, "next1", raw_).Parent(), Snapshot::Get(ctx_, "s", raw_).Digest());
}

TEST_F(RestoreTest, TakesSnapshotsOfOtherSandboxesOfTheImageInBothFormats) {
  const std::string of_cow = Step("cow", 1, "of-cow");
  WriteAsGuest("raw", 2, 2 * kRestoreMiB, raw_);
  Snapshot::Create(ctx_, "raw", {.name = "of-raw"}, raw_);
  const std::string of_raw = DiskOf("raw", raw_);
  Restore("raw", "of-cow");
  Restore("cow", "of-raw");
  EXPECT_TRUE(DiskOf("raw", raw_) == of_cow);
  EXPECT_TRUE(DiskOf("cow", cow_) == of_raw);
  EXPECT_EQ(RecordOf("raw").upper->format, DiskFormat::kRaw);
  EXPECT_EQ(RecordOf("cow").upper->format, DiskFormat::kQcow2);
  for (const char* name : {"raw", "cow"}) ExpectTidy(name);
}

TEST_F(RestoreTest, TakesASnapshotFromOutsideTheHome) {
  const fs::path outside = dir_ / "elsewhere/s";
  Snapshot::Create(ctx_, "cow", {.path = outside}, cow_);
  Step("cow", 1, "inside");
  Restore("cow", outside);
  EXPECT_EQ(RecordOf("cow").snapshot_path, outside);
  Restore("cow", "inside");
  EXPECT_EQ(RecordOf("cow").snapshot_path, "");
}

TEST_F(RestoreTest, KeepsTheSettingsOfTheSandbox) {
  CreateSandbox(ctx_, "set",
                {WithImage(dir_ / "base.img"), WithLabel("k", "v"), WithCPUs(3), WithMemory(123)},
                cow_)
      .Close();
  Step("set", 1, "s");
  const vmm::SandboxRecord before = RecordOf("set");
  Restore("set", "s");
  const vmm::SandboxRecord now = RecordOf("set");
  EXPECT_EQ(now.labels, before.labels);
  EXPECT_EQ(now.created_at, before.created_at);
  EXPECT_EQ(now.started_at, before.started_at);
  EXPECT_EQ(now.status, SandboxStatus::kStopped);
  EXPECT_THAT(now.config_json, ::testing::HasSubstr("\"cpus\":3"));
  EXPECT_THAT(now.config_json, ::testing::HasSubstr("\"memory_mib\":123"));
}

TEST_F(RestoreTest, KeepsALargerDisk) {
  for (Client* client : {&cow_, &raw_}) {
    const std::string name = client == &cow_ ? "cow" : "raw";
    Snapshot::Create(ctx_, name, {.name = name}, *client);
    const std::string content = DiskOf(name, *client);
    CreateSandbox(ctx_, "large", {WithImage(dir_ / "base.img"), WithOCIUpperSize(8), WithReplace()},
                  *client)
        .Close();
    Restore("large", name);
    EXPECT_TRUE(DiskOf("large", cow_) == content + std::string(4 * kRestoreMiB, '\0')) << name;
    // A larger snapshot makes the disk larger.
    Snapshot::Create(ctx_, "large", {.name = "large", .force = true}, *client);
    CreateSandbox(ctx_, "small", {WithImage(dir_ / "base.img"), WithReplace()}, *client).Close();
    Restore("small", "large");
    EXPECT_EQ(DiskOf("small", cow_).size(), 8 * kRestoreMiB) << name;
    RemoveSandbox(ctx_, "small", cow_);
    RemoveSandbox(ctx_, "large", cow_);
  }
}

TEST_F(RestoreTest, ReplacesADiskThatIsLostOrDamaged) {
  const std::string content = Step("cow", 1, "s");
  fs::remove(RecordOf("cow").upper->path);
  Restore("cow", "s");
  EXPECT_TRUE(DiskOf("cow", cow_) == content);
  WriteFile(RecordOf("cow").upper->path, "damaged");
  Restore("cow", "s");
  EXPECT_TRUE(DiskOf("cow", cow_) == content);
}

TEST_F(RestoreTest, PrefersTheFilesOfTheSnapshotToCopiesInTheSandbox) {
  const std::string content = Step("cow", 1, "s");
  const fs::path copy = RecordOf("cow").backing.at(0).disk.path;
  const std::string bytes = ReadFile(copy);
  fs::remove(copy);
  WriteFile(copy, bytes.substr(0, bytes.size() / 2));
  Restore("cow", "s");
  EXPECT_TRUE(DiskOf("cow", cow_) == content);
  EXPECT_TRUE(fs::equivalent(copy, dir_ / "home/snapshots/s/upper.qcow2"));
  ExpectTidy("cow");
}

TEST_F(RestoreTest, RefusesASnapshotOfAnotherImage) {
  MakeSparseFile(dir_ / "other.img", kRestoredBytes, {{0, Noise(70'000, 2)}});
  CreateSandbox(ctx_, "other", {WithImage(dir_ / "other.img")}, cow_).Close();
  Snapshot::Create(ctx_, "other", {.name = "s"}, cow_);
  ExpectUnchanged("cow", ErrorKind::kInvalidArgument, [&] { Restore("cow", "s"); },
                  {"sandbox 'cow'", "/snapshots/s", "base.img", "other.img",
                   RecordOf("cow").image->manifest_digest, RecordOf("other").image->manifest_digest,
                   "create a sandbox from the snapshot instead"});
  // The backend checks this again, since the sandbox may have been replaced meanwhile.
  const vmm::SandboxRecord other = RecordOf("other");
  ExpectUnchanged("cow", ErrorKind::kInvalidArgument,
                  [&] {
                    cow_.backend()->Restore(ctx_, "cow",
                                            {.digest = *other.snapshot_digest,
                                             .artifact = dir_ / "home/snapshots/s",
                                             .image = *other.image,
                                             .upper = other.backing.at(0).disk,
                                             .backing = {other.backing.at(1)}});
                  },
                  {"base.img", "other.img"});
}

TEST_F(RestoreTest, RefusesARunningSandbox) {
  Step("cow", 1, "s");
  const Sandbox running = StartSandbox(ctx_, "cow", cow_);
  ExpectUnchanged("cow", ErrorKind::kSandboxStillRunning, [&] { Restore("cow", "s"); },
                  {"sandbox 'cow' is running", "stop it first"});
}

TEST_F(RestoreTest, RefusesAnAbsentSandbox) {
  Step("cow", 1, "s");
  EXPECT_MSB_ERROR(Restore("absent", "s"), ErrorKind::kSandboxNotFound, "no sandbox 'absent'");
  EXPECT_MSB_ERROR(Restore("../cow", "s"), ErrorKind::kSandboxNotFound, "no sandbox '../cow'",
                   "plain file name");
}

TEST_F(RestoreTest, RefusesASnapshotThatCannotBeBooted) {
  Step("cow", 1, "s1");
  Step("cow", 2, "s2");
  ExpectUnchanged("cow", ErrorKind::kSnapshotNotFound, [&] { Restore("cow", "absent"); },
                  {"/snapshots/absent"});
  // The parent is still in the sandbox, but the snapshot does not depend on the sandbox.
  Snapshot::Remove(ctx_, "s1", true, cow_);
  ExpectUnchanged("cow", ErrorKind::kSnapshotNotFound, [&] { Restore("cow", "s2"); },
                  {"/snapshots/s2", "parent"});
  Snapshot::Create(ctx_, "raw", {.name = "s3"}, raw_);
  fs::resize_file(dir_ / "home/snapshots/s3/upper.ext4", 1000);
  ExpectUnchanged("raw", ErrorKind::kSnapshotIntegrity, [&] { Restore("raw", "s3"); },
                  {"/snapshots/s3/upper.ext4"});
}

// The VM has ended in the middle of a live snapshot, and the overlay was damaged.
TEST_F(RestoreTest, ReplacesADiskWhoseLiveSnapshotCannotBeFinished) {
  const std::string content = Step("cow", 1, "s1");
  const fs::path record = DirectoryOf("cow") / "sandbox.json";
  auto json = nlohmann::json::parse(ReadFile(record));
  json["live"] = {{"overlay", "upper-0123456789abcdef.qcow2"}};
  WriteFile(record, json.dump());
  WriteFile(DirectoryOf("cow") / "upper-0123456789abcdef.qcow2", "damaged");
  std::vector<std::string> warnings;
  Client client = LocalClient(dir_ / "home", &warnings);
  EXPECT_EQ(GetSandbox(ctx_, "cow", client).Status(), SandboxStatus::kStopped);
  EXPECT_THAT(warnings, testing::Contains(
                            testing::AllOf(testing::HasSubstr("in the middle of a live snapshot"),
                                           testing::HasSubstr("upper-0123456789abcdef.qcow2"))));
  EXPECT_MSB_ERROR(std::ignore = StartSandbox(ctx_, "cow", client), ErrorKind::kSnapshotIntegrity,
                   "upper-0123456789abcdef.qcow2");
  Snapshot::Restore(ctx_, "cow", "s1", client);
  ExpectTidy("cow");
  EXPECT_TRUE(DiskOf("cow", cow_) == content);
}

TEST_F(RestoreTest, RefusesASnapshotWithADamagedHeader) {
  Step("cow", 1, "s1");
  Step("cow", 2, "s2");
  Restore("cow", "s2");
  const fs::path file = dir_ / "home/snapshots/s1/upper.qcow2";
  const std::string bytes = ReadFile(file);
  fs::remove(file);  // The sandbox keeps its own file.
  WriteFile(file, "XXXX" + bytes.substr(4));
  ExpectUnchanged("cow", ErrorKind::kSnapshotIntegrity, [&] { Restore("cow", "s2"); },
                  {"/snapshots/s1/upper.qcow2"});
}

TEST_F(RestoreTest, RefusesADiskThatHasTheNameOfTheSnapshotsDisk) {
  Step("cow", 1, "s");
  const fs::path dir = DirectoryOf("cow");
  const std::string name = RecordOf("cow").backing.at(0).name;
  const std::string upper = RecordOf("cow").upper->path.filename();
  // As a seal that was rolled back may leave it on a file system without hard links.
  fs::copy_file(dir / name, dir / "copy");
  fs::rename(dir / "copy", dir / name);
  std::string record = ReadFile(dir / "sandbox.json");
  record.replace(record.find(upper), upper.size(), name);
  WriteFile(dir / "sandbox.json", record);
  fs::remove(dir / upper);
  ExpectUnchanged("cow", ErrorKind::kUnsupportedOperation, [&] { Restore("cow", "s"); },
                  {"sandbox 'cow'", name, "create a snapshot of the sandbox first"});
}

TEST_F(RestoreTest, ReportsTheSpaceThatARawDiskNeeds) {
  constexpr std::uint64_t kData = 3 * kRestoreMiB;
  WriteFile(dir_ / "noise", Noise(kData, 5));
  const auto run = RunCommand("qemu-io -f raw -c 'write -s " + (dir_ / "noise").native() +
                              " 0 3M' '" + RecordOf("raw").upper->path.native() + "'");
  ASSERT_EQ(run.status, 0) << run.output;
  Snapshot::Create(ctx_, "raw", {.name = "s"}, raw_);
  PrivateMounts mounts;
  const fs::path disk = dir_ / "disk";
  if (!mounts.Tmpfs(disk, 5 * kRestoreMiB)) GTEST_SKIP() << mounts.failure();
  Client small = ClientFor(DiskFormat::kRaw, disk / "sandboxes");
  CreateSandbox(ctx_, "new", {WithSnapshot("s")}, small).Close();
  WriteAsGuest("new", 7, 0, small);
  const auto before = ListTree(disk);
  EXPECT_MSB_ERROR(Snapshot::Restore(ctx_, "new", "s", small), ErrorKind::kIO,
                   "bytes are free there and at least", "are needed: free space");
  EXPECT_EQ(ListTree(disk), before);
  StartSandbox(ctx_, "new", small).Stop(ctx_);
}

TEST_F(RestoreTest, ACancelledCallChangesNothing) {
  Snapshot::Create(ctx_, "raw", {.name = "s"}, raw_);
  const auto [cancelled, cancel] = ctx_.WithCancel();
  const Context ctx = cancelled.WithProgress([&, end = cancel](const Progress&) { end(); });
  ExpectUnchanged("raw", ErrorKind::kCancelled, [&] { Snapshot::Restore(ctx, "raw", "s", raw_); },
                  {"cancel"});
  ExpectUnchanged("raw", ErrorKind::kCancelled,
                  [&] { Snapshot::Restore(cancelled, "raw", "s", raw_); }, {"cancel"});
  Restore("raw", "s");
}

TEST_F(RestoreTest, TheDefaultBackendRefuses) {
  Client runtime({.home = dir_ / "home", .backend = "microsandbox"});
  EXPECT_MSB_ERROR(runtime.backend()->Restore(ctx_, "cow", {}), ErrorKind::kUnsupportedOperation,
                   "microsandbox", "'cow'", "create a sandbox from the snapshot");
}

}  // namespace
}  // namespace msb::test
