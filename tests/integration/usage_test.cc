// SPDX-License-Identifier: Apache-2.0
//
// Usage: what snapshots take, compared with du and with the space that their removal frees.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "src/base/file.h"
#include "tests/support/mounts.h"
#include "tests/support/sandbox_disk.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kUsageMiB = 1 << 20;

// Where a home is, and the file system there.
struct Place {
  std::string name;
  std::function<bool(PrivateMounts&, const fs::path&)> mount = {};
  // Space that the index and the metadata of the file system may take or free meanwhile. Empty if
  // other programs use the file system.
  std::optional<std::uint64_t> slack = 128 << 10;
  // Whether a raw snapshot shares its blocks with the disk that it was made from, if that is known.
  std::optional<bool> has_reflinks = false;
};

class UsageTest : public ::testing::TestWithParam<Place> {
 protected:
  UsageTest() {
    fs::create_directory(dir_ / "m");
    if (GetParam().mount) mounted_ = GetParam().mount(mounts_, dir_ / "m");
    if (!mounted_) return;
    MakeSparseFile(root_ / "base.img", 64 * kUsageMiB, {{0, Noise(3 * kUsageMiB, 1)}});
  }

  void SetUp() override {
    if (!mounted_) GTEST_SKIP() << mounts_.failure();
  }

  Client ClientFor(DiskFormat format) const {
    return Client({.home = root_ / "home", .backend = "local", .upper_format = format});
  }

  // Makes sandboxes of both formats, and snapshots: raw, raw2 (the same content), cow1 <- cow2.
  void MakeSnapshots() {
    for (Client* client : {&raw_, &cow_}) {
      const std::string name = client == &raw_ ? "raw" : "cow";
      CreateSandbox(ctx_, name, {WithImage(root_ / "base.img")}, *client).Close();
    }
    for (const char* name : {"raw", "raw2"}) Snapshot::Create(ctx_, "raw", {.name = name}, raw_);
    for (const int i : {1, 2}) {
      // 2 MiB, whose clusters are spread.
      for (std::uint64_t at = 0; at < 32; ++at) WriteAsGuest("cow", i, at * 2 * kUsageMiB, cow_);
      Snapshot::Create(ctx_, "cow", {.name = "cow" + std::to_string(i)}, cow_);
    }
  }

  std::map<std::string, SnapshotUsage> Usage() {
    sync();
    std::map<std::string, SnapshotUsage> usages;
    for (SnapshotUsage& usage : Snapshot::Usage(ctx_, raw_)) {
      usages[usage.name.value()] = std::move(usage);
    }
    return usages;
  }

  // Returns the bytes that du counts for the snapshot.
  std::uint64_t Du(const std::string& snapshot, const std::string& options) const {
    const auto run = RunCommand("du -s " + options + " '" +
                                (root_ / "home/snapshots" / snapshot).native() + "'");
    EXPECT_EQ(run.status, 0) << run.output;
    return std::stoull(run.output);
  }

  // XFS frees the space of a removed file in the background. A freeze waits until that is done.
  void AwaitBackgroundWork() const {
    if (!GetParam().mount) return;  // Other programs use this file system.
    const base::UniqueFd dir = base::TryOpenDirectory(root_);
    if (ioctl(dir.get(), FIFREEZE, 0) != 0) return;  // As on tmpfs, which frees space at once.
    EXPECT_EQ(ioctl(dir.get(), FITHAW, 0), 0);
  }

  std::uint64_t Free() const {
    // Btrfs frees the space of a file when its transactions are committed.
    for (int i = 0; i < 2; ++i) sync();
    AwaitBackgroundWork();
    struct statvfs st {};
    EXPECT_EQ(statvfs((root_ / "home").c_str(), &st), 0);
    return std::uint64_t{st.f_bfree} * st.f_frsize;
  }

  // Removes the snapshot, and expects this to free what Usage reports.
  void ExpectFreed(const std::string& snapshot) {
    const std::uint64_t exclusive = Usage().at(snapshot).exclusive;
    const std::uint64_t before = Free();
    Snapshot::Remove(ctx_, snapshot, true, raw_);
    const std::uint64_t after = Free();
    if (!GetParam().slack) return;
    const auto difference = static_cast<std::int64_t>(after - before - exclusive);
    EXPECT_LE(std::abs(difference), static_cast<std::int64_t>(*GetParam().slack))
        << snapshot << ": " << exclusive << " reported, " << after - before << " freed";
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  PrivateMounts mounts_;
  bool mounted_ = true;
  const fs::path root_ = dir_ / "m";
  Client raw_ = ClientFor(DiskFormat::kRaw);
  Client cow_ = ClientFor(DiskFormat::kQcow2);
};

TEST_P(UsageTest, AgreesWithDu) {
  MakeSnapshots();
  const auto usages = Usage();
  EXPECT_EQ(usages.size(), 4U);
  for (const auto& [name, usage] : usages) {
    EXPECT_EQ(usage.allocated, Du(name, "-B1")) << name;
    // du counts the sizes of directories, too.
    EXPECT_LE(usage.apparent, Du(name, "--apparent-size -b")) << name;
    const SnapshotHandle handle = Snapshot::Get(ctx_, name, raw_);
    EXPECT_EQ(usage.digest, handle.Digest());
    EXPECT_EQ(usage.path, handle.Path());
    EXPECT_LE(usage.exclusive, usage.allocated);
  }
  EXPECT_GE(usages.at("raw").apparent, 64 * kUsageMiB);
  EXPECT_GE(usages.at("raw").allocated, 3 * kUsageMiB);
  EXPECT_LT(usages.at("raw").allocated, 8 * kUsageMiB);
}

TEST_P(UsageTest, ReportsWhatEachRemovalFrees) {
  MakeSnapshots();
  // The disks of cow1 and cow2 back that of the sandbox, which keeps them.
  EXPECT_LT(Usage().at("cow1").exclusive, kUsageMiB / 2);
  if (GetParam().has_reflinks) {
    EXPECT_EQ(Usage().at("raw").exclusive < kUsageMiB, *GetParam().has_reflinks);
  }
  for (const char* name : {"cow2", "raw", "raw2", "cow1"}) ExpectFreed(name);
  RemoveSandbox(ctx_, "cow", cow_);
}

TEST_P(UsageTest, CountsADiskThatNoSandboxHas) {
  MakeSnapshots();
  RemoveSandbox(ctx_, "cow", cow_);
  RemoveSandbox(ctx_, "raw", raw_);
  EXPECT_GE(Usage().at("cow1").exclusive, 2 * kUsageMiB);
  for (const char* name : {"cow2", "cow1", "raw", "raw2"}) ExpectFreed(name);
}

std::string NameOfPlace(const ::testing::TestParamInfo<Place>& place) { return place.param.name; }

INSTANTIATE_TEST_SUITE_P(
    FileSystems, UsageTest,
    ::testing::Values(
        Place{.name = "BuildDirectory", .slack = std::nullopt, .has_reflinks = std::nullopt},
        Place{.name = "Tmpfs",
              .mount = [](PrivateMounts& mounts,
                          const fs::path& dir) { return mounts.Tmpfs(dir, 128 * kUsageMiB); }},
        Place{.name = "Ext4",
              .mount = [](PrivateMounts& mounts,
                          const fs::path& dir) { return mounts.InFile(dir, "ext4"); }},
        Place{.name = "Xfs",
              .mount = [](PrivateMounts& mounts,
                          const fs::path& dir) { return mounts.InFile(dir, "xfs"); },
              .has_reflinks = true},
        Place{.name = "Btrfs",
              .mount = [](PrivateMounts& mounts,
                          const fs::path& dir) { return mounts.InFile(dir, "btrfs"); },
              .slack = kUsageMiB,
              .has_reflinks = true}),
    NameOfPlace);

class UsageRowsTest : public ::testing::Test {
 protected:
  UsageRowsTest() { MakeStoppedSandbox(client_, "a", dir_ / "base.img"); }

  fs::path Snapshots() const { return dir_ / "home/snapshots"; }

  // Returns the names of the snapshots that are reported.
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const auto& usage : Snapshot::Usage(ctx_, client_)) names.push_back(usage.name.value());
    return names;
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  Client client_ = LocalClient(dir_ / "home");
};

TEST_F(UsageRowsTest, IsEmptyWithoutSnapshots) { EXPECT_TRUE(Names().empty()); }

TEST_F(UsageRowsTest, ReportsTheNewestFirstAndLeavesOutWhatIsAbsent) {
  for (const char* name : {"s1", "s2", "s3", "s4"}) {
    Snapshot::Create(ctx_, "a", {.name = name}, client_);
  }
  fs::remove_all(Snapshots() / "s2");
  // A directory of somebody else, in the place of a snapshot.
  fs::remove_all(Snapshots() / "s3");
  fs::create_directory(Snapshots() / "s3");
  WriteFile(Snapshots() / "s3/notes", "text");
  EXPECT_THAT(Names(), ::testing::ElementsAre("s4", "s1"));
  // A damaged snapshot takes space, too.
  WriteFile(Snapshots() / "s4/snapshot.json", "{");
  EXPECT_THAT(Names(), ::testing::ElementsAre("s4", "s1"));
}

TEST_F(UsageRowsTest, CountsLinksWithinASnapshotOnceAndThoseElsewhereAsKept) {
  Snapshot::Create(ctx_, "a", {.name = "s"}, client_);
  const fs::path disk = Snapshots() / "s/upper.ext4";
  const SnapshotUsage alone = Snapshot::Usage(ctx_, client_).at(0);
  EXPECT_EQ(alone.exclusive, alone.allocated);
  // Both names are in the snapshot.
  fs::create_hard_link(disk, Snapshots() / "s/metadata.json");
  const SnapshotUsage twice = Snapshot::Usage(ctx_, client_).at(0);
  EXPECT_EQ(twice.allocated, alone.allocated);
  EXPECT_EQ(twice.apparent, alone.apparent);
  EXPECT_EQ(twice.exclusive, alone.exclusive);
  fs::create_hard_link(disk, dir_ / "backup");
  const SnapshotUsage kept = Snapshot::Usage(ctx_, client_).at(0);
  EXPECT_EQ(kept.allocated, alone.allocated);
  EXPECT_LT(kept.exclusive, alone.exclusive);
}

TEST_F(UsageRowsTest, CountsAnotherArtifactWithTheSameDigestByItself) {
  Snapshot::Create(ctx_, "a", {.name = "s"}, client_);
  Snapshot::Export(ctx_, "s", dir_ / "s.tar", {.plain_tar = true}, client_);
  Snapshot::Import(ctx_, dir_ / "s.tar", dir_ / "elsewhere", client_);
  const auto usages = Snapshot::Usage(ctx_, client_);
  ASSERT_EQ(usages.size(), 2U);
  EXPECT_EQ(usages[0].digest, usages[1].digest);
  EXPECT_NE(usages[0].path, usages[1].path);
}

TEST_F(UsageRowsTest, CanBeCancelled) {
  Snapshot::Create(ctx_, "a", {.name = "s"}, client_);
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(Snapshot::Usage(ctx, client_), ErrorKind::kCancelled, "cancel");
}

}  // namespace
}  // namespace msb::test
