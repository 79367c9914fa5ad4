// SPDX-License-Identifier: Apache-2.0
//
// Chains of qcow2 disks: snapshots take over the disks of qcow2 sandboxes. qemu-io writes what a
// guest would write.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "src/artifact/store.h"
#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kDiskBytes = 8 << 20;

class ChainTest : public ::testing::Test {
 protected:
  ChainTest() {
    MakeSparseFile(dir_ / "base.img", kDiskBytes, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "baseline", {WithImage(dir_ / "base.img")}, client_).Close();
  }

  std::string UpperOf(const std::string& name) {
    return GetSandbox(ctx_, name, client_).Upper().path;
  }

  // Writes 64 KiB of the byte pattern at an offset in KiB, with the whole chain open.
  void WriteAsGuest(const std::string& sandbox, int pattern, int offset_kib) {
    const auto run = RunCommand("qemu-io -f qcow2 -c 'write -P " + std::to_string(pattern) + " " +
                                std::to_string(offset_kib) + "k 64k' '" + UpperOf(sandbox) + "'");
    ASSERT_EQ(run.status, 0) << run.output;
  }

  // Returns the byte that a guest would read at this offset in KiB.
  char Read(const std::string& snapshot, int offset_kib, Client& client) {
    Snapshot::Flatten(ctx_, snapshot, dir_ / "flat", {}, client);
    return ReadFile(dir_ / "flat")[static_cast<std::size_t>(offset_kib) * 1024];
  }

  SnapshotArtifact Create(const std::string& sandbox, const std::string& name) {
    return Snapshot::Create(ctx_, sandbox, {.name = name, .record_integrity = true}, client_);
  }

  void Boot(const std::string& name, const std::string& snapshot) {
    CreateSandbox(ctx_, name, {WithSnapshot(snapshot)}, client_).Close();
  }

  // Expects no artifact to share its file with a disk that a sandbox writes to, and none to be
  // writable.
  void ExpectSealed() {
    std::map<std::uint64_t, std::string> uppers;
    for (const auto& sandbox : ListSandboxes(ctx_, client_)) {
      const std::string path = sandbox.Upper().path;
      uppers.emplace(base::StampOf(fs::path(path))->inode, path);
    }
    for (const auto& snapshot : Snapshot::ListDir(ctx_, "", client_)) {
      const auto stamp = base::StampOf(fs::path(snapshot.Path()) / "upper.qcow2");
      ASSERT_TRUE(stamp) << snapshot.Path();
      EXPECT_FALSE(uppers.contains(stamp->inode)) << snapshot.Path() << uppers[stamp->inode];
      EXPECT_EQ(stamp->mode & 0222, 0U) << snapshot.Path();
    }
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client client_{{.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kQcow2}};
};

TEST_F(ChainTest, ASnapshotHoldsTheChangesSinceItsParent) {
  WriteAsGuest("baseline", 0x11, 1024);
  const auto first = Create("baseline", "first");
  EXPECT_EQ(first.Parent(), std::nullopt);
  WriteAsGuest("baseline", 0x22, 2048);
  const auto second = Create("baseline", "second");
  EXPECT_EQ(second.Parent(), first.Digest());
  Boot("worker", "second");
  WriteAsGuest("worker", 0x33, 1024);
  const auto third = Create("worker", "third");
  EXPECT_EQ(third.Parent(), second.Digest());

  EXPECT_EQ(Read("first", 1024, client_), 0x11);
  EXPECT_EQ(Read("first", 2048, client_), 0);
  EXPECT_EQ(Read("second", 1024, client_), 0x11);
  EXPECT_EQ(Read("second", 2048, client_), 0x22);
  EXPECT_EQ(Read("third", 1024, client_), 0x33);
  EXPECT_EQ(Read("third", 2048, client_), 0x22);
  EXPECT_EQ(ReadFile(dir_ / "flat").substr(0, 70'000), Noise(70'000, 1));
  for (const auto& snapshot : {first, second, third}) {
    EXPECT_EQ(snapshot.Verify(ctx_).upper.kind, "verified");
    EXPECT_LT(snapshot.SizeBytes(), 1U << 20);
  }
  ExpectSealed();
  const auto check = RunCommand("qemu-img check '" + UpperOf("worker") + "'");
  EXPECT_EQ(check.status, 0) << check.output;
}

// Once the sandbox runs, it is too late to resolve a pending seal.
TEST_F(ChainTest, ASandboxThatRunsIsNotHealed) {
  const fs::path path = dir_ / "home/sandboxes/baseline/sandbox.json";
  auto record = nlohmann::json::parse(ReadFile(path));
  record["status"] = "running";
  record["seal"] = {{"file", "upper.qcow2"},
                    {"digest", "sha256:" + std::string(64, 'a')},
                    {"artifact", (dir_ / "gone").native()}};
  WriteFile(path, record.dump());
  EXPECT_EQ(GetSandbox(ctx_, "baseline", client_).Status(), SandboxStatus::kRunning);
  EXPECT_EQ(ReadFile(path), record.dump());
}

TEST_F(ChainTest, AParentThatIsAnotherByNowIsNotTaken) {
  WriteAsGuest("baseline", 0x11, 1024);
  const auto first = Create("baseline", "first");
  const BackingFile file{"sha256_" + first.Digest().substr(7) + ".qcow2",
                         {first.Path() + "/upper.qcow2", DiskFormat::kQcow2, "ext4"}};
  EXPECT_NO_THROW(artifact::CheckUnreplaced(file));
  CreateSandbox(ctx_, "other", {WithImage(dir_ / "base.img")}, client_).Close();
  Snapshot::Remove(ctx_, "first", true, client_);
  Snapshot::Create(ctx_, "other", {.name = "first"}, client_);
  EXPECT_MSB_ERROR(artifact::CheckUnreplaced(file), ErrorKind::kSnapshotNotFound,
                   "/snapshots/first was replaced while it was read: expected the disk sha256_",
                   ", found sha256_", "try again");
}

// The owner has moved the parent to another disk, and left a symbolic link in its place.
TEST_F(ChainTest, AParentMayBeReachedByALink) {
  Create("baseline", "parent");
  fs::rename(dir_ / "home/snapshots/parent", dir_ / "elsewhere");
  fs::create_directory_symlink(dir_ / "elsewhere", dir_ / "home/snapshots/parent");
  WriteAsGuest("baseline", 0x22, 1024);
  Snapshot::Create(ctx_, "baseline", {.name = "child"}, client_);
  EXPECT_EQ(Read("child", 1024, client_), 0x22);
}

TEST_F(ChainTest, AChainMayBeOfAnyLength) {
  constexpr int kMostFiles = 200;  // One of these is the image.
  WriteAsGuest("baseline", 0x11, 1024);
  for (int n = 1; n < kMostFiles - 1; ++n) {
    EXPECT_EQ(Create("baseline", "s" + std::to_string(n)).Format(), "qcow2");
  }
  WriteAsGuest("baseline", 0x22, 2048);
  EXPECT_EQ(Create("baseline", "s199").Format(), "qcow2");
  WriteAsGuest("baseline", 0x33, 3072);
  const auto next = Create("baseline", "s200");
  EXPECT_EQ(next.Format(), "raw");
  EXPECT_EQ(next.SizeBytes(), kDiskBytes);
  EXPECT_EQ(next.Verify(ctx_).upper.kind, "verified");
  const std::string disk = ReadFile(next.Path() + "/upper.ext4");
  EXPECT_EQ(disk.substr(0, 70'000), Noise(70'000, 1));
  for (const auto& [at, byte] : {std::pair(1024, 0x11), {2048, 0x22}, {3072, 0x33}}) {
    EXPECT_EQ(disk[static_cast<std::size_t>(at) * 1024], byte);
    EXPECT_EQ(Read("s200", at, client_), byte);
  }
  EXPECT_EQ(Read("s199", 2048, client_), 0x22);
  // After that, a chain begins anew.
  WriteAsGuest("baseline", 0x55, 5120);
  const auto anew = Create("baseline", "s201");
  EXPECT_EQ(anew.Format(), "qcow2");
  EXPECT_EQ(anew.Parent(), next.Digest());
  EXPECT_LT(anew.SizeBytes(), 1U << 20);
  EXPECT_EQ(Read("s201", 3072, client_), 0x33);
  EXPECT_EQ(Read("s201", 5120, client_), 0x55);
  EXPECT_LT(ListTree(dir_ / "home/sandboxes/baseline").size(), 6U);
  // The longest possible chain can be booted, and so can its snapshot.
  for (const std::string name : {"s199", "s200"}) {
    Boot("worker-" + name, name);
    WriteAsGuest("worker-" + name, 0x44, 4096);
    Create("worker-" + name, "of-" + name);
    EXPECT_EQ(Read("of-" + name, 4096, client_), 0x44);
    EXPECT_EQ(Read("of-" + name, 2048, client_), 0x22);
  }
  EXPECT_EQ(Snapshot::Open(ctx_, "of-s200", client_).Format(), "qcow2");
}

// If each file of the chain were asked twice for each extent, this would never end.
TEST_F(ChainTest, AFragmentedDiskIsReadOnceForEachFile) {
  constexpr int kSnapshots = 40;
  std::vector<std::pair<std::uint64_t, std::string>> data;
  for (std::uint64_t n = 0; n < 64; ++n) data.emplace_back(n << 16, std::string(4096, 'x'));
  MakeSparseFile(dir_ / "fragments.img", 64 << 16, data);
  CreateSandbox(ctx_, "fragments", {WithImage(dir_ / "fragments.img")}, client_).Close();
  for (int n = 0; n < kSnapshots; ++n) Create("fragments", fmt::format("f{}", n));
  Snapshot::Flatten(ctx_, fmt::format("f{}", kSnapshots - 1), dir_ / "flat", {}, client_);
  EXPECT_EQ(ReadFile(dir_ / "flat"), ReadFile(dir_ / "fragments.img"));
}

TEST_F(ChainTest, BackingFilesOfASandboxSurviveTheRemovalOfTheSnapshot) {
  WriteAsGuest("baseline", 0x11, 1024);
  Create("baseline", "first");
  Boot("worker", "first");
  Create("worker", "second");
  EXPECT_MSB_ERROR(
      Snapshot::Remove(ctx_, "first", false, client_), ErrorKind::kSnapshotHasChildren,
      "first (sha256:", "is the parent of second (sha256:", "remove these first, or use force");
  Snapshot::Remove(ctx_, "first", true, client_);
  const auto check =
      RunCommand("qemu-io -r -f qcow2 -c 'read -P 0x11 1024k 64k' '" + UpperOf("worker") + "'");
  EXPECT_EQ(check.status, 0) << check.output;
  EXPECT_EQ(check.output.find("failed"), std::string::npos) << check.output;
  // The snapshot lacks its parent, and the error says so.
  try {
    Boot("late", "second");
    ADD_FAILURE() << "booted without the parent";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kSnapshotNotFound);
    EXPECT_NE(std::string(e.what()).find("has the parent sha256:"), std::string::npos) << e.what();
  }
  EXPECT_FALSE(fs::exists(dir_ / "home/sandboxes/late"));
}

TEST_F(ChainTest, ExportsAChainWithItsParentsAndItsImage) {
  for (int i = 1; i <= 3; ++i) {
    WriteAsGuest("baseline", i, i * 1024);
    Create("baseline", "s" + std::to_string(i));
  }
  Snapshot::Export(ctx_, "s3", dir_ / "x", {.with_parents = true, .with_image = true}, client_);
  Client other({.home = dir_ / "other", .backend = "local"});
  const auto head = Snapshot::Import(ctx_, dir_ / "x", "", other);
  for (int i = 1; i <= 3; ++i) EXPECT_EQ(Read(head.Path(), i * 1024, other), i);
  CreateSandbox(ctx_, "worker", {WithSnapshot(head.Path())}, other).Close();
  EXPECT_EQ(GetSandbox(ctx_, "worker", other).Upper().format, DiskFormat::kQcow2);
}

TEST_F(ChainTest, AChainWithoutItsImageNamesTheMissingImage) {
  Create("baseline", "s");
  Snapshot::Export(ctx_, "s", dir_ / "x", {}, client_);
  Client other({.home = dir_ / "other", .backend = "local"});
  const auto head = Snapshot::Import(ctx_, dir_ / "x", "", other);
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "w", {WithSnapshot(head.Path())}, other),
                   ErrorKind::kSnapshotImageMissing, "/upper.qcow2 is backed by the image '",
                   "/base.img', which cannot be opened");
  EXPECT_MSB_ERROR(Snapshot::Flatten(ctx_, head.Path(), dir_ / "flat", {}, other),
                   ErrorKind::kSnapshotImageMissing, "/upper.qcow2 is backed by the image '",
                   "/base.img', which cannot be opened");
  EXPECT_FALSE(fs::exists(dir_ / "flat"));
}

TEST_F(ChainTest, ForceReplacesTheSnapshotThatBacksTheSandboxByACompleteDisk) {
  const auto first = Create("baseline", "first");
  Create("baseline", "s");
  WriteAsGuest("baseline", 0x66, 1024);
  const auto replaced = Snapshot::Create(ctx_, "baseline", {.name = "s", .force = true}, client_);
  EXPECT_EQ(replaced.Format(), "raw");
  EXPECT_EQ(replaced.Parent(), first.Digest());
  EXPECT_NO_THROW(Snapshot::Export(ctx_, "s", dir_ / "s.tar", {.with_parents = true}, client_));
  EXPECT_EQ(Read("s", 1024, client_), 0x66);
  WriteAsGuest("baseline", 0x77, 2048);
  const auto next = Create("baseline", "next");
  EXPECT_EQ(next.Format(), "qcow2");
  EXPECT_EQ(next.Parent(), replaced.Digest());
  EXPECT_EQ(Read("next", 1024, client_), 0x66);
  EXPECT_EQ(Read("next", 2048, client_), 0x77);
  // "next" needs the disk of "s", and so would another sandbox.
  const auto before = ListTree(dir_ / "home/snapshots");
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "baseline", {.name = "s", .force = true}, client_),
                   ErrorKind::kSnapshotHasChildren, "/snapshots/s cannot be replaced",
                   "/snapshots/next", "choose another name");
  CreateSandbox(ctx_, "fork", {WithSnapshot("next")}, client_).Close();
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "baseline", {.name = "next", .force = true}, client_),
                   ErrorKind::kSnapshotHasChildren, "/snapshots/next cannot be replaced",
                   "sandbox 'fork'", "choose another name");
  EXPECT_EQ(ListTree(dir_ / "home/snapshots"), before);
}

TEST_F(ChainTest, AFailedCreateLeavesTheSandboxAsItWas) {
  Create("baseline", "taken");
  WriteAsGuest("baseline", 0x44, 1024);
  const auto before = ListTree(dir_ / "home");
  EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "baseline", {.name = "taken"}, client_),
                   ErrorKind::kSnapshotAlreadyExists, "/snapshots/taken exists",
                   "set force to replace it");
  const Context cancelled = ctx_.WithTimeout(std::chrono::nanoseconds(0));
  EXPECT_MSB_ERROR(Snapshot::Create(cancelled, "baseline", {.name = "s"}, client_),
                   ErrorKind::kCancelled, "deadline exceeded");
  EXPECT_EQ(ListTree(dir_ / "home"), before);
  WriteAsGuest("baseline", 0x55, 2048);
  Create("baseline", "s");
  EXPECT_EQ(Read("s", 1024, client_), 0x44);
}

TEST_F(ChainTest, ARunningSandboxIsNotSealed) {
  StartSandbox(ctx_, "baseline", client_).Detach(ctx_);
  EXPECT_MSB_ERROR(Create("baseline", "s"), ErrorKind::kSnapshotSandboxRunning,
                   "sandbox 'baseline' is running", "stop it first");
  GetSandbox(ctx_, "baseline", client_).Stop(ctx_);
  EXPECT_FALSE(fs::exists(dir_ / "home/snapshots/s"));
}

TEST_F(ChainTest, AnUpperMayGrowAndBeRaw) {
  Create("baseline", "s");
  CreateSandbox(ctx_, "large", {WithSnapshot("s"), WithOCIUpperSize(16)}, client_).Close();
  Create("large", "l");
  Snapshot::Flatten(ctx_, "l", dir_ / "flat.qcow2", {.format = DiskFormat::kQcow2}, client_);
  const auto info = RunCommand("qemu-img check '" + (dir_ / "flat.qcow2").native() +
                               "' && qemu-img info '" + (dir_ / "flat.qcow2").native() + "'");
  EXPECT_EQ(info.status, 0) << info.output;
  EXPECT_NE(info.output.find("16777216 bytes"), std::string::npos) << info.output;
  Client raw({.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kRaw});
  CreateSandbox(ctx_, "raw", {WithSnapshot("l")}, raw).Close();
  const auto upper = GetSandbox(ctx_, "raw", raw).Upper();
  EXPECT_EQ(upper.format, DiskFormat::kRaw);
  EXPECT_EQ(ReadFile(upper.path).substr(0, 70'000), Noise(70'000, 1));
  EXPECT_EQ(fs::file_size(upper.path), 16U << 20);
}

TEST_F(ChainTest, ADiskThatNamesAnotherThanItsParentIsRefused) {
  Create("baseline", "s");
  Create("baseline", "t");
  const fs::path upper = dir_ / "home/snapshots/t/upper.qcow2";
  const std::string bytes = ReadFile(upper);
  PatchFile(upper, bytes.find("sha256_"), "sha256_" + std::string(64, '0'));
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "w", {WithSnapshot("t")}, client_),
                   ErrorKind::kSnapshotIntegrity, "/t/upper.qcow2 is backed by 'sha256_000",
                   "neither its parent's disk nor its image");
  EXPECT_MSB_ERROR(Snapshot::Flatten(ctx_, "t", dir_ / "flat", {}, client_),
                   ErrorKind::kSnapshotIntegrity, "/t/upper.qcow2 is backed by 'sha256_000",
                   "neither its parent's disk nor its image");
  EXPECT_FALSE(fs::exists(dir_ / "home/sandboxes/w"));
  EXPECT_FALSE(fs::exists(dir_ / "flat"));
}

TEST_F(ChainTest, OpenRefusesADiskThatNamesItsParentsDiskInAnotherFormat) {
  Create("baseline", "s");
  Create("baseline", "t");
  const fs::path upper = dir_ / "home/snapshots/t/upper.qcow2";
  const std::string bytes = ReadFile(upper);
  const std::size_t name = bytes.find("sha256_");
  const std::size_t suffix = bytes.find(".qcow2", name);
  PatchFile(upper, suffix, std::string(".raw\0\0", 6));
  // The last byte of the length of the name.
  PatchFile(upper, 19, std::string(1, static_cast<char>(suffix + 4 - name)));
  EXPECT_MSB_ERROR(CreateSandbox(ctx_, "w", {WithSnapshot("t")}, client_),
                   ErrorKind::kSnapshotIntegrity, "/t/upper.qcow2 is backed by 'sha256_",
                   ".raw', but its parent's disk is 'sha256_", ".qcow2'");
}

}  // namespace
}  // namespace msb::test
