// SPDX-License-Identifier: Apache-2.0
//
// Operations that find no space report how much they need, and succeed with that much.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <regex>
#include <string>

#include "tests/support/mounts.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kDiskMiB = 1 << 20;
constexpr std::uint64_t kData = 8 * kDiskMiB;
// Space for directories, manifests and partly used pages.
constexpr std::uint64_t kSlack = kDiskMiB / 4;

class FullDiskNeedTest : public ::testing::Test {
 protected:
  // Makes a raw snapshot, and a qcow2 snapshot that is backed by an image: of each disk, 8 MiB do
  // not compress and the rest is holes.
  FullDiskNeedTest() {
    MakeSparseFile(dir_ / "base.img", 64 * kDiskMiB,
                   {{0, Noise(kData / 2, 1)}, {32 * kDiskMiB, Noise(kData / 2, 2)}});
    for (Client* client : {&raw_, &cow_}) {
      const std::string name = client == &raw_ ? "raw" : "cow";
      CreateSandbox(ctx_, name, {WithImage(dir_ / "base.img")}, *client).Close();
      Snapshot::Create(ctx_, name, {.name = name}, *client);
    }
  }

  Client ClientFor(DiskFormat format, const fs::path& sandboxes = {}) const {
    Config config{.home = dir_ / "home", .backend = "local", .upper_format = format};
    if (!sandboxes.empty()) config.sandboxes_dir = sandboxes;
    return Client(std::move(config));
  }

  // Calls write with a directory on a file system of 3 MiB, on which it must fail, and then on one
  // that has as much space as the message asks for. Expects it to ask for the 8 MiB of data, in
  // this way ("least" or "most"), and a sixteenth more at the most.
  void ExpectNeed(const std::string& bound, const std::function<void(const fs::path&)>& write) {
    const fs::path disk = dir_ / "disk";
    if (!mounts_.Tmpfs(disk, 3 * kDiskMiB)) GTEST_SKIP() << mounts_.failure();
    std::string message;
    try {
      write(disk);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kIO) << e.what();
      message = e.what();
    }
    mounts_.Undo();
    std::smatch numbers;
    const std::regex pattern("; ([0-9]+) bytes are free there and at " + bound +
                             " ([0-9]+) are needed: free space");
    ASSERT_TRUE(std::regex_search(message, numbers, pattern)) << message;
    const std::uint64_t free = std::stoull(numbers[1]);
    EXPECT_GT(free, 3 * kDiskMiB - kSlack) << "all but the rest of the failed file: " << message;
    EXPECT_LE(free, 3 * kDiskMiB) << message;
    const std::uint64_t need = std::stoull(numbers[2]);
    EXPECT_GE(need, kData) << message;
    EXPECT_LE(need, kData + kData / 16 + kSlack) << message;
    ASSERT_TRUE(mounts_.Tmpfs(disk, need + kSlack)) << mounts_.failure();
    EXPECT_NO_THROW(write(disk)) << message;
    mounts_.Undo();
  }

  const Context ctx_ = Context::Background();
  const TempDir dir_;
  PrivateMounts mounts_;
  Client raw_ = ClientFor(DiskFormat::kRaw);
  Client cow_ = ClientFor(DiskFormat::kQcow2);
};

TEST_F(FullDiskNeedTest, ExportReportsTheDataOfAPlainArchive) {
  ExpectNeed("least", [&](const fs::path& disk) {
    Snapshot::Export(ctx_, "raw", disk / "o.tar", {.plain_tar = true}, raw_);
  });
}

TEST_F(FullDiskNeedTest, ExportReportsAnUpperBoundForACompressedArchive) {
  ExpectNeed("most", [&](const fs::path& disk) {
    Snapshot::Export(ctx_, "raw", disk / "o.tar.zst", {}, raw_);
  });
}

TEST_F(FullDiskNeedTest, ExportCountsTheParentsAndTheImage) {
  ExpectNeed("least", [&](const fs::path& disk) {
    Snapshot::Export(ctx_, "cow", disk / "o.tar",
                     {.with_parents = true, .with_image = true, .plain_tar = true}, cow_);
  });
}

TEST_F(FullDiskNeedTest, FlattenReportsTheCompleteDisk) {
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2}) {
    SCOPED_TRACE(ToString(format));
    ExpectNeed("most", [&](const fs::path& disk) {
      Snapshot::Flatten(ctx_, "cow", disk / "o.img", {.format = format}, cow_);
    });
  }
}

TEST_F(FullDiskNeedTest, SquashReportsTheCompleteDisk) {
  ExpectNeed("most", [&](const fs::path& disk) {
    Snapshot::Squash(ctx_, "cow", {.path = disk / "s"}, cow_);
  });
  ExpectNeed("least", [&](const fs::path& disk) {
    Snapshot::Squash(ctx_, "raw", {.path = disk / "s"}, raw_);
  });
}

TEST_F(FullDiskNeedTest, CreateReportsTheDataOfACopy) {
  ExpectNeed("least", [&](const fs::path& disk) {
    Snapshot::Create(ctx_, "raw", {.path = disk / "s"}, raw_);
  });
}

// The disk cannot be linked into a snapshot on another file system.
TEST_F(FullDiskNeedTest, CreateReportsTheDataOfADiskThatItCannotLink) {
  Snapshot::Flatten(ctx_, "cow", dir_ / "whole.qcow2", {.format = DiskFormat::kQcow2}, cow_);
  CreateSandbox(ctx_, "heavy", {WithImage(dir_ / "base.img")}, cow_).Close();
  const std::string upper = GetSandbox(ctx_, "heavy", cow_).Upper().path;
  WriteFile(dir_ / "noise", Noise(kData, 3));
  const auto run = RunCommand("qemu-io -f qcow2 -c 'write -s " + (dir_ / "noise").native() +
                              " 16M 8M' '" + upper + "'");
  ASSERT_EQ(run.status, 0) << run.output;
  ExpectNeed("least", [&](const fs::path& disk) {
    Snapshot::Create(ctx_, "heavy", {.path = disk / "s"}, cow_);
  });
}

TEST_F(FullDiskNeedTest, ASandboxReportsTheDataOfItsDisk) {
  ExpectNeed("least", [&](const fs::path& disk) {
    Client client = ClientFor(DiskFormat::kRaw, disk / "sandboxes");
    CreateSandbox(ctx_, "new", {WithSnapshot("raw")}, client).Close();
  });
  ExpectNeed("most", [&](const fs::path& disk) {
    Client client = ClientFor(DiskFormat::kRaw, disk / "sandboxes");
    CreateSandbox(ctx_, "new", {WithSnapshot("cow")}, client).Close();
  });
}

// An entry that is not sparse stores the holes of the disk as zeros. It is refused before it is
// read, because a few compressed bytes may stand for a tebibyte of zeros.
TEST_F(FullDiskNeedTest, ImportRefusesADenseEntryThatIsLargerThanTheFreeSpace) {
  Client old(Config{.home = dir_ / "old", .backend = "local", .generation = Generation::kManifest});
  CreateSandbox(ctx_, "a", {WithImage(dir_ / "base.img")}, old).Close();
  Snapshot::Create(ctx_, "a", {.name = "s"}, old);
  Snapshot::Export(ctx_, "s", dir_ / "dense.tar.zst", {}, old);
  const fs::path disk = dir_ / "disk";
  if (!mounts_.Tmpfs(disk, 3 * kDiskMiB)) GTEST_SKIP() << mounts_.failure();
  EXPECT_MSB_ERROR(Snapshot::Import(ctx_, dir_ / "dense.tar.zst", disk / "s", raw_), ErrorKind::kIO,
                   "dense.tar.zst", "needs 67108864 bytes, but only", "are free in");
}

}  // namespace
}  // namespace msb::test
