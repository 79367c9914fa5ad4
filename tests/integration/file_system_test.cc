// SPDX-License-Identifier: Apache-2.0
//
// Every operation on file systems that lack a system call, and on small and unusual file systems
// that are mounted here. tests/environments/run.sh tries the same operations on more of them.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "msb/msb.h"
#include "src/base/sqlite.h"
#include "tests/environments/operations.h"
#include "tests/support/mapped_file.h"
#include "tests/support/missing_calls.h"
#include "tests/support/support.h"

namespace msb {
namespace {

namespace fs = std::filesystem;
using test::MissingCall;
using test::OperationResult;
using test::SnapshotNames;
using test::TempDir;
using ::testing::UnorderedElementsAre;

const Context ctx_ = Context::Background();

// Returns a line for each operation that failed.
std::string FailuresIn(const fs::path& root) {
  test::MakeEnvironmentHome(root);
  std::string failures;
  for (const OperationResult& result : test::TryOperations(root, root / "out")) {
    if (!result.error.empty()) failures += result.name + ": " + result.error + "\n";
  }
  return failures;
}

struct Lack {
  std::string name;
  std::vector<MissingCall> missing;
};
void PrintTo(const Lack& lack, std::ostream* out) { *out << lack.name; }

std::vector<Lack> Lacks() {
  return {{"RenameFlags", {test::NoRenameFlags(EINVAL)}},
          {"Links", {test::NoLinks(EPERM)}},
          {"Locks", {test::NoLocks(ENOLCK)}},
          {"Holes", {test::NoHoles(EINVAL)}},
          {"DirectoryFlush", {test::NoDirectoryFlush(EINVAL)}},
          {"AllOfThem",
           {test::NoRenameFlags(ENOSYS), test::NoLinks(EMLINK), test::NoLocks(EOPNOTSUPP),
            test::NoHoles(EOPNOTSUPP), test::NoDirectoryFlush(ENOSYS), test::NoClone(EIO),
            test::NoKernelCopy(EOPNOTSUPP)}}};
}

class LackingFileSystemTest : public ::testing::TestWithParam<Lack> {};

TEST_P(LackingFileSystemTest, EveryOperationWorks) {
  const TempDir dir("/dev/shm");  // A flush costs nothing there.
  EXPECT_EQ(test::RunWithout(GetParam().missing, [&] { return FailuresIn(dir.path()); }), "");
}

INSTANTIATE_TEST_SUITE_P(Calls, LackingFileSystemTest, ::testing::ValuesIn(Lacks()),
                         [](const auto& test) { return test.param.name; });

// A mounted file system, which is unmounted at the end. Must not be used if the mount was refused.
class Mount {
 public:
  Mount(const char* type, const fs::path& target, const std::string& options) : target_(target) {
    fs::create_directory(target);
    mounted_ = mount("msb", target.c_str(), type, 0, options.c_str()) == 0;
  }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount() {
    if (mounted_) umount2(target_.c_str(), MNT_DETACH);
  }

  explicit operator bool() const { return mounted_; }

 private:
  const fs::path target_;
  bool mounted_ = false;
};

// Shows the files of one directory in another by means of FUSE. Must not be used if that failed.
class FuseMount {
 public:
  FuseMount(const fs::path& source, const fs::path& target, const std::string& options = "")
      : target_(target) {
    fs::create_directory(target);
    mounted_ = Run("bindfs " + options + " '" + source.native() + "' '" + target.native() + "'");
  }
  FuseMount(const FuseMount&) = delete;
  FuseMount& operator=(const FuseMount&) = delete;
  ~FuseMount() {
    if (mounted_ && umount2(target_.c_str(), MNT_DETACH) != 0) {
      Run("fusermount -uz '" + target_.native() + "'");
    }
  }

  explicit operator bool() const { return mounted_; }

 private:
  static bool Run(const std::string& command) {
    return test::RunCommand(command + " 2>&1").status == 0;
  }

  const fs::path target_;
  bool mounted_ = false;
};

TEST(OverlayTest, EveryOperationWorksOnASnapshotOfTheLowerLayer) {
  const TempDir dir("/dev/shm");
  for (const std::string name : {"lower", "upper", "work"}) fs::create_directory(dir / name);
  test::MakeEnvironmentHome(dir / "lower/root");
  const Mount overlay("overlay", dir / "merged",
                      "lowerdir=" + (dir / "lower").native() + ",upperdir=" +
                          (dir / "upper").native() + ",workdir=" + (dir / "work").native());
  if (!overlay) GTEST_SKIP() << "needs the right to mount overlayfs";
  for (const OperationResult& result :
       test::TryOperations(dir / "merged/root", dir / "merged/root/out")) {
    EXPECT_EQ(result.error, "") << result.name;
  }
}

// A mount shows files that can also be reached below it, without the locks and leases of the mount.
class UnderlyingFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    struct statfs file_system {};
    ASSERT_EQ(statfs(dir_.path().c_str(), &file_system), 0);
    if (file_system.f_type == TMPFS_MAGIC || file_system.f_type == OVERLAYFS_SUPER_MAGIC) {
      GTEST_SKIP() << "the tests' directory is on tmpfs or overlayfs";
    }
    for (const char* name : {"lower", "upper", "work"}) fs::create_directory(dir_ / name);
  }

  Mount MountOverlay() const {
    return {"overlay", dir_ / "merged",
            "lowerdir=" + (dir_ / "lower").native() + ",upperdir=" + (dir_ / "upper").native() +
                ",workdir=" + (dir_ / "work").native()};
  }

  // Makes a sandbox in the home that is mounted at merged, and expects that it cannot be
  // snapshotted while a program writes to its file in below.
  void ExpectWriterIsNoticed(const fs::path& below) {
    test::WriteFile(dir_ / "image", test::Noise(102'400, 1));
    Client client = test::LocalClient(dir_ / "merged/home");
    CreateSandbox(ctx_, "a", {WithImage(dir_ / "image")}, client).Close();
    const fs::path disk = GetSandbox(ctx_, "a", client).Upper().path;
    const fs::path file = below / fs::relative(disk, dir_ / "merged");
    {
      test::MappedFile mapped(file);
      mapped.Dirty();
      const Context ctx = ctx_.WithProgress([&](const Progress&) { mapped.Touch(); });
      EXPECT_MSB_ERROR(Snapshot::Create(ctx, "a", {.name = "s"}, client),
                       ErrorKind::kSnapshotSandboxRunning, disk.native());
    }
    Snapshot::Create(ctx_, "a", {.name = "s"}, client);
  }

  const TempDir dir_;
};

TEST_F(UnderlyingFilesTest, AWriterToTheUpperLayerOfAnOverlayIsNoticed) {
  const Mount overlay = MountOverlay();
  if (!overlay) GTEST_SKIP() << "needs the right to mount overlayfs";
  ExpectWriterIsNoticed(dir_ / "upper");
}

TEST_F(UnderlyingFilesTest, AWriterThatMappedAFileOfAnOverlayIsNoticed) {
  const Mount overlay = MountOverlay();
  if (!overlay) GTEST_SKIP() << "needs the right to mount overlayfs";
  ExpectWriterIsNoticed(dir_ / "merged");
}

TEST_F(UnderlyingFilesTest, AWriterToAFileBehindAFuseMountIsNoticed) {
  const FuseMount mount(dir_ / "lower", dir_ / "merged");
  if (!mount) GTEST_SKIP() << "cannot mount with bindfs";
  ExpectWriterIsNoticed(dir_ / "lower");
}

TEST_F(UnderlyingFilesTest, ASandboxThatRunsOnTheOtherSideOfAnOverlayRuns) {
  test::WriteFile(dir_ / "image", test::Noise(102'400, 1));
  const auto expect_running = [](const fs::path& home) {
    Client client = test::LocalClient(home);
    EXPECT_EQ(GetSandbox(ctx_, "a", client).Status(), SandboxStatus::kRunning) << home;
    EXPECT_MSB_ERROR(Snapshot::Create(ctx_, "a", {.name = "s"}, client),
                     ErrorKind::kSnapshotSandboxRunning, "'a'");
    EXPECT_MSB_ERROR(RemoveSandbox(ctx_, "a", client), ErrorKind::kSandboxStillRunning, "'a'");
  };
  Client lower = test::LocalClient(dir_ / "lower/home");
  const Sandbox sandbox = CreateSandbox(ctx_, "a", {WithImage(dir_ / "image")}, lower);
  const Mount overlay = MountOverlay();
  if (!overlay) GTEST_SKIP() << "needs the right to mount overlayfs";
  expect_running(dir_ / "merged/home");
  Client merged = test::LocalClient(dir_ / "merged/other");
  const Sandbox other = CreateSandbox(ctx_, "a", {WithImage(dir_ / "image")}, merged);
  expect_running(dir_ / "upper/other");
}

std::int64_t CountMessages(const std::vector<std::string>& log, const std::string& text) {
  return std::count_if(log.begin(), log.end(), [&](const std::string& message) {
    return message.find(text) != std::string::npos;
  });
}

// A FUSE mount without shared mappings, which the write-ahead log of SQLite needs. Below it there
// is a home with the snapshot "old".
class NoSharedMappingsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(dir_ / "lower");
    {
      Client client = test::LocalClient(dir_ / "lower/home");
      test::MakeStoppedSandbox(client, "a", dir_ / "image");
      Snapshot::Create(ctx_, "a", {.name = "old"}, client);
    }
    mount_.emplace(dir_ / "lower", dir_ / "merged", "-o direct_io");
    if (!*mount_) GTEST_SKIP() << "cannot mount with bindfs";
  }

  // Returns the number of rows in the database, which the mount shows.
  std::int64_t CountRows() const {
    const base::Database db(dir_ / "lower/home/db/snapshots.db", base::Database::Mode::kReadOnly);
    base::Statement count(db, "SELECT count(*) FROM snapshot_index");
    return count.Step() ? count.Integer(0) : -1;
  }

  const TempDir dir_;
  std::optional<FuseMount> mount_;
};

using Names = std::vector<std::string>;

TEST_F(NoSharedMappingsTest, TheIndexIsWrittenWithARollbackJournal) {
  std::vector<std::string> log;
  {
    Client one = test::LocalClient(dir_ / "merged/home", &log);
    Client other = test::LocalClient(dir_ / "merged/home", &log);
    EXPECT_EQ(SnapshotNames(one), Names{"old"});
    EXPECT_EQ(SnapshotNames(other), Names{"old"});
    Snapshot::Create(ctx_, "a", {.name = "new"}, one);
    EXPECT_EQ(CountRows(), 2);
    EXPECT_THAT(SnapshotNames(other), UnorderedElementsAre("new", "old"));
    Snapshot::Remove(ctx_, "old", false, other);
    EXPECT_EQ(CountRows(), 1);
    EXPECT_EQ(SnapshotNames(one), Names{"new"});
  }
  EXPECT_EQ(CountMessages(log, "uses a rollback journal from now on"), 1);
  EXPECT_EQ(CountMessages(log, "cannot be written"), 0);

  mount_.reset();
  Client below = test::LocalClient(dir_ / "lower/home", &log);
  EXPECT_EQ(SnapshotNames(below), Names{"new"});
  Snapshot::Create(ctx_, "a", {.name = "last"}, below);
  EXPECT_EQ(CountRows(), 2);
  EXPECT_EQ(CountMessages(log, "index"), 1);
}

// FUSE does not pass on the locks of the program that uses the log.
TEST_F(NoSharedMappingsTest, ALogThatIsInUseBelowTheMountIsLeftAlone) {
  const fs::path log_file = dir_ / "lower/home/db/snapshots.db-wal";
  Client below = test::LocalClient(dir_ / "lower/home");
  EXPECT_EQ(SnapshotNames(below), Names{"old"});
  Snapshot::Create(ctx_, "a", {.name = "below"}, below);
  ASSERT_TRUE(fs::exists(log_file));
  std::vector<std::string> log;
  Client above = test::LocalClient(dir_ / "merged/home", &log);
  EXPECT_THAT(SnapshotNames(above), UnorderedElementsAre("below", "old"));
  EXPECT_EQ(CountMessages(log, "uses a rollback journal from now on"), 0);
  EXPECT_TRUE(fs::exists(log_file));
  Snapshot::Create(ctx_, "a", {.name = "new"}, below);
  EXPECT_EQ(CountRows(), 3);
}

TEST_F(NoSharedMappingsTest, ANewIndexIsWrittenToo) {
  Client client = test::LocalClient(dir_ / "merged/new");
  test::MakeStoppedSandbox(client, "a", dir_ / "image");
  Snapshot::Create(ctx_, "a", {.name = "s"}, client);
  const base::Database db(dir_ / "lower/new/db/snapshots.db", base::Database::Mode::kReadOnly);
  base::Statement count(db, "SELECT count(*) FROM snapshot_index");
  ASSERT_TRUE(count.Step());
  EXPECT_EQ(count.Integer(0), 1);
}

// An earlier version of this library gives the index a write-ahead log whenever it opens it.
TEST_F(NoSharedMappingsTest, AnIndexIsOpenedAgainIfItGetsALogBelowTheMount) {
  Client client = test::LocalClient(dir_ / "merged/home");
  EXPECT_EQ(SnapshotNames(client), Names{"old"});
  base::Database(dir_ / "lower/home/db/snapshots.db", base::Database::Mode::kReadWrite)
      .Execute("PRAGMA journal_mode = WAL");
  EXPECT_EQ(SnapshotNames(client), Names{"old"});
  Snapshot::Create(ctx_, "a", {.name = "new"}, client);
  EXPECT_EQ(CountRows(), 2);
}

// Other hosts may use the file system of a mount, and they do not see the memory of a log.
TEST(SharedFileSystemTest, ANewIndexHasNoLog) {
  const TempDir dir;
  fs::create_directory(dir / "lower");
  const FuseMount mount(dir / "lower", dir / "merged");
  if (!mount) GTEST_SKIP() << "cannot mount with bindfs";
  std::vector<std::string> log;
  Client client = test::LocalClient(dir / "merged/home", &log);
  test::MakeStoppedSandbox(client, "a", dir / "image");
  Snapshot::Create(ctx_, "a", {.name = "s"}, client);
  EXPECT_FALSE(fs::exists(dir / "lower/home/db/snapshots.db-wal"));
  EXPECT_EQ(SnapshotNames(client), Names{"s"});
  EXPECT_EQ(CountMessages(log, "index"), 0);
}

class TmpfsTest : public ::testing::Test {
 protected:
  // Exports a snapshot whose disk is mostly a hole.
  void Export(std::uint64_t disk_bytes, const std::string& data) {
    Client client = test::LocalClient(dir_ / "donor");
    test::MakeSparseFile(dir_ / "base.img", disk_bytes, {{0, data}});
    test::MakeStoppedSandbox(client, "donor", dir_ / "base.img");
    Snapshot::Create(ctx_, "donor", {.name = "thin"}, client);
    Snapshot::Export(ctx_, "thin", dir_ / "thin.tar.zst", {}, client);
  }

  const TempDir dir_;
};

TEST_F(TmpfsTest, ImportsToAFileSystemThatReportsNoBlocks) {
  Export(8 << 20, "data");
  const Mount tmpfs("tmpfs", dir_ / "unlimited", "size=0");
  if (!tmpfs) GTEST_SKIP() << "needs the right to mount tmpfs";
  Client client = test::LocalClient(dir_ / "unlimited/home");
  EXPECT_NO_THROW(Snapshot::Import(ctx_, dir_ / "thin.tar.zst", "", client));
}

TEST_F(TmpfsTest, ImportsAThinDiskThatIsLargerThanTheFreeSpace) {
  Export(std::uint64_t{2} << 30, "data");
  const Mount tmpfs("tmpfs", dir_ / "small", "size=64m");
  if (!tmpfs) GTEST_SKIP() << "needs the right to mount tmpfs";
  Client client = test::LocalClient(dir_ / "small/home");
  EXPECT_NO_THROW(Snapshot::Import(ctx_, dir_ / "thin.tar.zst", "", client));
}

TEST_F(TmpfsTest, ImportReportsHowMuchSpaceItNeeds) {
  Export(32 << 20, test::Noise(16 << 20, 1));
  const Mount tmpfs("tmpfs", dir_ / "full", "size=8m");
  if (!tmpfs) GTEST_SKIP() << "needs the right to mount tmpfs";
  Client client = test::LocalClient(dir_ / "full/home");
  struct statvfs before {};
  ASSERT_EQ(statvfs((dir_ / "full").c_str(), &before), 0);
  try {
    Snapshot::Import(ctx_, dir_ / "thin.tar.zst", "", client);
    ADD_FAILURE() << "imported";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kIO) << e.what();
    const std::string message = e.what();
    EXPECT_NE(message.find("needs 16777216 bytes"), std::string::npos) << message;
    EXPECT_NE(message.find("are free in " + (dir_ / "full/home/snapshots").native()),
              std::string::npos)
        << message;
    EXPECT_NE(message.find("; free "), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace msb
