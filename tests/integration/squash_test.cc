// SPDX-License-Identifier: Apache-2.0
//
// Squash makes one raw artifact of the complete disk of any snapshot.

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kSquashedDiskBytes = 8 << 20;

class SquashTest : public ::testing::Test {
 protected:
  SquashTest() {
    MakeSparseFile(dir_ / "base.img", kSquashedDiskBytes, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "baseline", {WithImage(dir_ / "base.img")}, client_).Close();
    for (int n = 1; n <= 3; ++n) {
      const std::string upper = GetSandbox(ctx_, "baseline", client_).Upper().path;
      const auto run = RunCommand("qemu-io -f qcow2 -c 'write -P " + std::to_string(n) + " " +
                                  std::to_string(n) + "M 64k' '" + upper + "'");
      EXPECT_EQ(run.status, 0) << run.output;
      Snapshot::Create(ctx_, "baseline", {.name = "s" + std::to_string(n)}, client_);
    }
  }

  std::string DiskOf(const std::string& snapshot, Client& client) {
    Snapshot::Flatten(ctx_, snapshot, dir_ / "flat", {}, client);
    return ReadFile(dir_ / "flat");
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client client_{{.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kQcow2}};
};

TEST_F(SquashTest, WritesTheCompleteDiskIntoOneRawArtifact) {
  const auto source = Snapshot::Open(ctx_, "s3", client_);
  const auto squashed = Snapshot::Squash(
      ctx_, "s3", {.name = "one", .labels = {{"k", "v"}}, .record_integrity = true}, client_);
  EXPECT_EQ(squashed.Format(), "raw");
  EXPECT_EQ(squashed.SizeBytes(), kSquashedDiskBytes);
  EXPECT_EQ(squashed.Parent(), std::nullopt);
  EXPECT_EQ(squashed.ImageRef(), source.ImageRef());
  EXPECT_EQ(squashed.ImageManifestDigest(), source.ImageManifestDigest());
  EXPECT_EQ(squashed.Fstype(), source.Fstype());
  EXPECT_EQ(squashed.SourceSandbox(), source.SourceSandbox());
  EXPECT_EQ(squashed.Labels(), (std::map<std::string, std::string>{{"k", "v"}}));
  const std::string disk = ReadFile(fs::path(squashed.Path()) / "upper.ext4");
  EXPECT_TRUE(disk == DiskOf("s3", client_));
  EXPECT_EQ(disk.substr(0, 70'000), Noise(70'000, 1));
  for (std::size_t n = 1; n <= 3; ++n) EXPECT_EQ(disk[n << 20], static_cast<char>(n));
  const auto report = squashed.Verify(ctx_);
  EXPECT_EQ(report.upper.kind, "verified");
  EXPECT_TRUE(report.backing.empty());
  EXPECT_EQ(Snapshot::Get(ctx_, "one", client_).Digest(), squashed.Digest());
}

TEST_F(SquashTest, TheResultOutlivesItsSource) {
  Snapshot::Squash(ctx_, "s3", {.path = dir_ / "elsewhere"}, client_);
  const std::string disk = DiskOf("s3", client_);
  RemoveSandbox(ctx_, "baseline", client_);
  for (const auto* name : {"s3", "s2", "s1"}) Snapshot::Remove(ctx_, name, false, client_);
  fs::remove_all(dir_ / "home/cache/disks");
  EXPECT_TRUE(DiskOf(dir_ / "elsewhere", client_) == disk);
  Snapshot::Export(ctx_, dir_ / "elsewhere", dir_ / "o.tar.zst", {.with_parents = true}, client_);
  Client other{{.home = dir_ / "other", .backend = "local"}};
  const auto imported = Snapshot::Import(ctx_, dir_ / "o.tar.zst", "", other);
  CreateSandbox(ctx_, "w", {WithSnapshot(imported.Path())}, other).Close();
}

TEST_F(SquashTest, ForceMayReplaceTheSnapshotItself) {
  const std::string disk = DiskOf("s3", client_);
  RemoveSandbox(ctx_, "baseline", client_);
  EXPECT_MSB_ERROR(Snapshot::Squash(ctx_, "s3", {.name = "s3"}, client_),
                   ErrorKind::kSnapshotAlreadyExists, "/snapshots/s3 exists",
                   "set force to replace it");
  const auto squashed = Snapshot::Squash(ctx_, "s3", {.name = "s3", .force = true}, client_);
  EXPECT_EQ(squashed.Format(), "raw");
  EXPECT_TRUE(DiskOf("s3", client_) == disk);
}

TEST_F(SquashTest, CopiesARawSnapshotWithItsHoles) {
  Client raw{{.home = dir_ / "raw", .backend = "local", .upper_format = DiskFormat::kRaw}};
  CreateSandbox(ctx_, "r", {WithImage(dir_ / "base.img")}, raw).Close();
  const auto source = Snapshot::Create(ctx_, "r", {.name = "a"}, raw);
  const auto squashed = Snapshot::Squash(ctx_, "a", {.name = "b", .record_integrity = true}, raw);
  EXPECT_EQ(squashed.Verify(ctx_).upper.kind, "verified");
  const fs::path copy = fs::path(squashed.Path()) / "upper.ext4";
  EXPECT_TRUE(ReadFile(copy) == ReadFile(fs::path(source.Path()) / "upper.ext4"));
  EXPECT_EQ(ExtentsOf(copy), ExtentsOf(fs::path(source.Path()) / "upper.ext4"));
}

TEST_F(SquashTest, LeavesNothingWhenItFails) {
  fs::remove(
      dir_ / "home/cache/disks" /
      ("sha256_" + Snapshot::Open(ctx_, "s1", client_).ImageManifestDigest().substr(7) + ".raw"));
  const auto before = ListTree(dir_ / "home/snapshots");
  EXPECT_MSB_ERROR(Snapshot::Squash(ctx_, "s3", {.name = "one"}, client_),
                   ErrorKind::kSnapshotImageMissing, "/s1/upper.qcow2 is backed by the image '",
                   "/base.img', which cannot be opened");
  EXPECT_MSB_ERROR(Snapshot::Squash(ctx_, "s3", {}, client_), ErrorKind::kInvalidArgument,
                   "exactly one of SnapshotCreateOptions::name and path");
  EXPECT_MSB_ERROR(Snapshot::Squash(ctx_, "absent", {.name = "one"}, client_),
                   ErrorKind::kSnapshotNotFound, "no snapshot at ", "/snapshots/absent");
  EXPECT_EQ(ListTree(dir_ / "home/snapshots"), before);
}

}  // namespace
}  // namespace msb::test
