// SPDX-License-Identifier: Apache-2.0
//
// Verify checks every file that a disk is backed by, and finds parents wherever they are.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <tuple>

#include "src/base/file.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::uint64_t kVerifiedDiskBytes = 8 << 20;

// A chain a, b, c of qcow2 snapshots on an image.
class ChainVerifyTest : public ::testing::Test {
 protected:
  ChainVerifyTest() {
    MakeSparseFile(dir_ / "base.img", kVerifiedDiskBytes, {{0, Noise(70'000, 1)}});
    CreateSandbox(ctx_, "baseline", {WithImage(dir_ / "base.img")}, client_).Close();
  }

  SnapshotArtifact Seal(const std::string& name, bool record_integrity = true) {
    ++writes_;
    const auto run = RunCommand("qemu-io -f qcow2 -c 'write -P " + std::to_string(writes_) + " " +
                                std::to_string(writes_ % 8) + "M 64k' '" +
                                GetSandbox(ctx_, "baseline", client_).Upper().path + "'");
    EXPECT_EQ(run.status, 0) << run.output;
    return Snapshot::Create(ctx_, "baseline", {.name = name, .record_integrity = record_integrity},
                            client_);
  }

  fs::path ImagePath(const SnapshotArtifact& snapshot) const {
    return dir_ / "home/cache/disks" /
           ("sha256_" + snapshot.ImageManifestDigest().substr(7) + ".raw");
  }

  // Changes one byte in place, in a file that may be read-only.
  static void Damage(const fs::path& path, std::uint64_t offset) {
    fs::permissions(path, fs::perms::owner_write, fs::perm_options::add);
    const char byte = ReadFile(path).at(offset);
    PatchFile(path, offset, std::string(1, static_cast<char>(byte ^ 1)));
  }

  // Expects Verify to fail with this kind and to name all of these.
  void ExpectRefused(const SnapshotArtifact& snapshot, ErrorKind kind,
                     const std::vector<std::string>& named) {
    try {
      std::ignore = snapshot.Verify(ctx_);
      ADD_FAILURE() << "verified";
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
      for (const std::string& name : named) EXPECT_THAT(e.what(), HasSubstr(name));
    }
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client client_{{.home = dir_ / "home", .backend = "local", .upper_format = DiskFormat::kQcow2}};
  int writes_ = 0;
};

TEST_F(ChainVerifyTest, ReportsEveryFileNearestFirst) {
  const auto a = Seal("a");
  const auto b = Seal("b", /*record_integrity=*/false);
  const auto c = Seal("c");
  const auto report = c.Verify(ctx_);
  EXPECT_EQ(report.digest, c.Digest());
  EXPECT_EQ(report.upper.kind, "verified");
  ASSERT_EQ(report.backing.size(), 3U);
  EXPECT_EQ(report.backing[0].digest, b.Digest());
  EXPECT_EQ(report.backing[0].path, b.Path() + "/upper.qcow2");
  EXPECT_EQ(report.backing[0].status.kind, "not_recorded");
  EXPECT_EQ(report.backing[0].status.algorithm, "");
  EXPECT_EQ(report.backing[1].digest, a.Digest());
  EXPECT_EQ(report.backing[1].status.kind, "verified");
  EXPECT_EQ(report.backing[1].status.digest, a.Integrity()->digest);
  EXPECT_EQ(report.backing[2].digest, c.ImageManifestDigest());
  EXPECT_EQ(report.backing[2].path, ImagePath(c));
  EXPECT_EQ(report.backing[2].status.kind, "verified");
  EXPECT_EQ(report.backing[2].status.algorithm, "sha256");
  EXPECT_EQ(report.backing[2].status.digest, c.ImageManifestDigest());
}

TEST_F(ChainVerifyTest, IntegrityReturnsTheRecordedValue) {
  const auto a = Seal("a");
  ASSERT_TRUE(a.Integrity());
  EXPECT_EQ(a.Integrity()->algorithm, "msb-file-merkle-blake3-v1");
  const auto upper = a.Verify(ctx_).upper;
  EXPECT_EQ(a.Integrity(), (SnapshotIntegrity{upper.algorithm, upper.digest}));
  fs::remove_all(a.Path());
  EXPECT_TRUE(a.Integrity());
  EXPECT_EQ(Seal("b", /*record_integrity=*/false).Integrity(), std::nullopt);
}

TEST_F(ChainVerifyTest, DetectsADamagedParent) {
  const auto a = Seal("a");
  Seal("b");
  const auto c = Seal("c");
  const std::string upper = a.Path() + "/upper.qcow2";
  Damage(upper, base::StampOf(fs::path(upper))->size - 1);
  ExpectRefused(c, ErrorKind::kSnapshotIntegrity, {upper});
}

TEST_F(ChainVerifyTest, DetectsADamagedImage) {
  Seal("a");
  const auto b = Seal("b");
  Damage(ImagePath(b), 100);
  ExpectRefused(b, ErrorKind::kSnapshotIntegrity, {ImagePath(b)});
}

TEST_F(ChainVerifyTest, DetectsAnAlteredManifestOfAParent) {
  const auto a = Seal("a");
  const auto b = Seal("b");
  const std::string manifest = a.Path() + "/snapshot.json";
  std::string text = ReadFile(manifest);
  text.replace(text.find("baseline"), 8, "basement");
  WriteFile(manifest, text);
  ExpectRefused(b, ErrorKind::kSnapshotIntegrity, {a.Path(), a.Digest()});
  WriteFile(manifest, "{");
  ExpectRefused(b, ErrorKind::kSnapshotIntegrity, {manifest});
}

TEST_F(ChainVerifyTest, NamesAMissingParentAndAMissingImage) {
  const auto a = Seal("a");
  const auto b = Seal("b");
  fs::rename(ImagePath(a), dir_ / "image");
  ExpectRefused(b, ErrorKind::kSnapshotImageMissing, {ImagePath(a), "import"});
  fs::remove_all(a.Path());
  ExpectRefused(b, ErrorKind::kSnapshotNotFound, {a.Digest(), "import"});
}

TEST_F(ChainVerifyTest, ADiskThatStandsAloneHasNoBacking) {
  Client raw{{.home = dir_ / "raw", .backend = "local", .upper_format = DiskFormat::kRaw}};
  CreateSandbox(ctx_, "r", {WithImage(dir_ / "base.img")}, raw).Close();
  Snapshot::Create(ctx_, "r", {.name = "a"}, raw);
  CreateSandbox(ctx_, "s", {WithSnapshot("a")}, raw).Close();
  const auto b = Snapshot::Create(ctx_, "s", {.name = "b", .record_integrity = true}, raw);
  ASSERT_TRUE(b.Parent());
  // Neither its parent nor its image is needed.
  fs::remove_all(dir_ / "raw/snapshots/a");
  fs::remove_all(dir_ / "raw/cache/disks");
  EXPECT_TRUE(b.Verify(ctx_).backing.empty());
}

TEST_F(ChainVerifyTest, ProgressCoversAllFiles) {
  const auto a = Seal("a");
  const auto b = Seal("b");
  std::vector<Progress> reports;
  std::ignore = b.Verify(ctx_.WithProgress([&](const Progress& progress) {
    EXPECT_EQ(progress.phase, "verify");
    reports.push_back(progress);
  }));
  ASSERT_FALSE(reports.empty());
  for (const Progress& report : reports) EXPECT_EQ(report.bytes_total, reports[0].bytes_total);
  EXPECT_EQ(reports.back().bytes_done, reports.back().bytes_total);
  EXPECT_GT(reports.back().bytes_total, 3U * 64 * 1024);  // Three files have that much data.
}

// Counts how often a file is opened.
class OpenCounter {
 public:
  explicit OpenCounter(const fs::path& file) : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    EXPECT_GE(inotify_add_watch(fd_.get(), file.c_str(), IN_OPEN), 0);
  }
  int Count() {
    int count = 0;
    alignas(inotify_event) std::array<char, 4096> buffer;
    for (;;) {
      const ssize_t size = read(fd_.get(), buffer.data(), buffer.size());
      if (size <= 0) return count;
      // The events of a single watched file have no names, and therefore one size.
      count += static_cast<int>(static_cast<std::size_t>(size) / sizeof(inotify_event));
    }
  }

 private:
  base::UniqueFd fd_;
};

TEST_F(ChainVerifyTest, UnindexedParentsCostOneWalk) {
  constexpr int kLength = 12;
  std::string head;
  for (int n = 0; n < kLength; ++n) {
    head = "s" + std::to_string(n);
    Seal(head, /*record_integrity=*/false);
  }
  fs::rename(dir_ / "home/snapshots", dir_ / "unindexed");
  const auto bystander = Snapshot::Squash(ctx_, dir_ / "unindexed" / head,
                                          {.path = dir_ / "unindexed/bystander"}, client_);
  // Another home, whose index has none of them.
  fs::create_directories(dir_ / "other");
  fs::copy(dir_ / "home/cache", dir_ / "other/cache", fs::copy_options::recursive);
  Client other{{.home = dir_ / "other", .backend = "local"}};
  OpenCounter manifest(bystander.Path() + "/snapshot.json");
  OpenCounter disk(bystander.Path() + "/upper.ext4");
  const auto opened = Snapshot::Open(ctx_, dir_ / "unindexed" / head, other);
  EXPECT_EQ(opened.Verify(ctx_).backing.size(), static_cast<std::size_t>(kLength));
  EXPECT_EQ(manifest.Count(), 1);
  Snapshot::Export(ctx_, opened.Path(), dir_ / "o.tar", {.with_parents = true, .plain_tar = true},
                   other);
  EXPECT_EQ(manifest.Count(), 1);
  Snapshot::Flatten(ctx_, opened.Path(), dir_ / "flat", {}, other);
  EXPECT_EQ(manifest.Count(), 1);
  EXPECT_EQ(disk.Count(), 0);
}

// A home of release 0.7, whose snapshots are members of groups.
class GroupParentTest : public ::testing::Test {
 protected:
  GroupParentTest() : home_(UnpackFixtureHome("0.7.2", dir_.path())) {
    Snapshot::Reindex(ctx_, "", client_);
    CreateSandbox(ctx_, "w", {WithSnapshot("baseline:labelled")}, client_).Close();
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_;
  Client client_{{.home = home_, .backend = "local", .upper_format = DiskFormat::kQcow2}};
};

TEST_F(GroupParentTest, ChildrenOfMembersBootAndVerify) {
  const auto parent = Snapshot::Open(ctx_, "baseline:labelled", client_);
  const auto child =
      Snapshot::Create(ctx_, "w", {.name = "child", .record_integrity = true}, client_);
  EXPECT_EQ(child.Format(), "qcow2");
  EXPECT_EQ(child.Parent(), parent.Digest());
  const auto report = child.Verify(ctx_);
  ASSERT_EQ(report.backing.size(), 1U);
  EXPECT_EQ(report.backing[0].digest, parent.Digest());
  EXPECT_EQ(report.backing[0].status.kind, "verified");
  Snapshot::Flatten(ctx_, "child", dir_ / "flat", {}, client_);
  Snapshot::Flatten(ctx_, "baseline:labelled", dir_ / "flat-parent", {}, client_);
  EXPECT_TRUE(ReadFile(dir_ / "flat") == ReadFile(dir_ / "flat-parent"));
  CreateSandbox(ctx_, "x", {WithSnapshot("child")}, client_).Close();
}

TEST_F(GroupParentTest, GetFindsParentsByDigestAndBySnapshotId) {
  const auto child = Snapshot::Create(ctx_, "w", {.name = "child"}, client_);
  const auto parent = Snapshot::Open(ctx_, "baseline:labelled", client_);
  const auto plain = Snapshot::Open(ctx_, "baseline:plain", client_);
  EXPECT_EQ(Snapshot::Get(ctx_, *child.Parent(), client_).Path(), parent.Path());
  const auto handle = Snapshot::Get(ctx_, "child", client_);
  EXPECT_EQ(Snapshot::Get(ctx_, *handle.ParentDigest(), client_).Path(), parent.Path());
  ASSERT_TRUE(parent.Parent()->starts_with("snap_"));
  EXPECT_EQ(Snapshot::Get(ctx_, *parent.Parent(), client_).Path(), plain.Path());
  const auto of_parent = Snapshot::Get(ctx_, parent.Digest(), client_);
  EXPECT_EQ(Snapshot::Get(ctx_, *of_parent.ParentDigest(), client_).Path(), plain.Path());
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "snap_0123", client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot 'snap_0123' in the index", "call Reindex");
}

TEST_F(GroupParentTest, GetFindsThemInAnIndexOfItsOwn) {
  const auto parent = Snapshot::Open(ctx_, "baseline:labelled", client_);
  fs::remove_all(home_ / "db");
  Client other{{.home = home_, .backend = "local"}};
  EXPECT_EQ(Snapshot::Get(ctx_, *parent.Parent(), other).Name(), "baseline:plain");
}

}  // namespace
}  // namespace msb::test
