// SPDX-License-Identifier: Apache-2.0
//
// Homes whose index cannot be opened or written: on a read-only file system, of another user, on a
// full disk; and homes with long paths.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <optional>
#include <tuple>

#include "src/base/sqlite.h"
#include "tests/support/mounts.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

const Context kCtx = Context::Background();

// Makes the snapshots "parent", "child" (an overlay of it) and "raw".
void MakeSnapshots(const fs::path& home, const fs::path& image) {
  Client client(Config{.home = home, .backend = "local", .upper_format = DiskFormat::kQcow2});
  WriteFile(image, Noise(1 << 20, 1));
  CreateSandbox(kCtx, "q", {WithImage(image)}, client).Close();
  Snapshot::Create(kCtx, "q", {.name = "parent", .record_integrity = true}, client);
  Snapshot::Create(kCtx, "q", {.name = "child"}, client);
  Client raw(Config{.home = home, .backend = "local", .upper_format = DiskFormat::kRaw});
  CreateSandbox(kCtx, "r", {WithImage(image)}, raw).Close();
  Snapshot::Create(kCtx, "r", {.name = "raw"}, raw);
}

// Makes every call that only reads the home. Throws the error of the first that fails.
void ReadHome(const fs::path& home, const fs::path& out, std::vector<std::string>* log) {
  Client client = LocalClient(home, log);
  const auto expect = [](bool condition, const std::string& what) {
    if (!condition) throw Error(ErrorKind::kInternal, "unexpected: " + what);
  };
  expect(Snapshot::List(kCtx, client).size() == 3, "List");
  expect(Snapshot::ListDir(kCtx, "", client).size() == 3, "ListDir");
  for (const std::string name : {"parent", "child", "raw"}) {
    const auto handle = Snapshot::Get(kCtx, name, client);
    expect(handle.Name() == name, "Get");
    expect(Snapshot::Get(kCtx, handle.Digest(), client).Path() == handle.Path(), "Get by digest");
    const auto opened = Snapshot::Open(kCtx, name, client);
    expect(opened.Digest() == handle.Digest(), "Open");
    std::ignore = opened.Verify(kCtx);
    Snapshot::Export(kCtx, name, out / (name + ".tar"), {}, client);
    Snapshot::Flatten(kCtx, name, out / (name + ".raw"), {}, client);
  }
  std::ignore = ListSandboxes(kCtx, client);
}

// Boots each snapshot of a read-only home, in sandboxes elsewhere.
void BootFrom(const fs::path& home, const fs::path& sandboxes, std::vector<std::string>* log) {
  Config config{.home = home, .sandboxes_dir = sandboxes, .backend = "local"};
  config.log = [log](std::string_view message) { log->emplace_back(message); };
  Client client(config);
  for (const std::string name : {"parent", "child", "raw"}) {
    CreateSandbox(kCtx, "from-" + name, {WithSnapshot(name)}, client).Stop(kCtx);
  }
}

class IndexPlaceTest : public ::testing::Test {
 protected:
  IndexPlaceTest() {
    fs::permissions(dir_.path(), fs::perms::all);
    for (const char* name : {"out", "sandboxes"}) {
      fs::create_directory(dir_ / name);
      fs::permissions(dir_ / name, fs::perms::all);
    }
  }

  TempDir dir_{"/dev/shm"};
  const fs::path home_ = dir_ / "home";
  std::vector<std::string> log_;
};

TEST_F(IndexPlaceTest, AHomeOnAReadOnlyFileSystemIsReadAndBootedFrom) {
  MakeSnapshots(home_, dir_ / "base.img");
  PrivateMounts mounts;
  if (!mounts.ReadOnly(home_)) GTEST_SKIP() << mounts.failure();
  const auto before = ListTree(home_);
  ReadHome(home_, dir_ / "out", &log_);
  EXPECT_THAT(log_, SizeIs(1));
  BootFrom(home_, dir_ / "sandboxes", &log_);
  EXPECT_THAT(log_, Each(AllOf(HasSubstr(home_.native()), HasSubstr("cannot be written"))));
  EXPECT_EQ(ListTree(home_), before);
  Client client = LocalClient(home_, &log_);
  try {
    std::ignore = Snapshot::Get(kCtx, "absent", client);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kSnapshotNotFound) << e.what();
    EXPECT_THAT(e.what(), AllOf(HasSubstr("snapshots"), Not(HasSubstr("index"))));
  }
  for (const auto& call :
       std::vector<std::function<void()>>{[&] { Snapshot::Remove(kCtx, "raw", true, client); },
                                          [&] { Snapshot::Reindex(kCtx, "", client); }}) {
    try {
      call();
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kIO) << e.what();
      EXPECT_THAT(e.what(), AllOf(HasSubstr(home_.native()), HasSubstr("ead-only")));
    }
  }
  EXPECT_EQ(ListTree(home_), before);
}

TEST_F(IndexPlaceTest, AReadOnlyHomeWithoutAnIndexOrWithADamagedOneIsRead) {
  MakeSnapshots(home_, dir_ / "base.img");
  for (const bool damaged : {false, true}) {
    fs::remove_all(home_ / "db");
    if (damaged) WriteFile(home_ / "db/snapshots.db", Noise(8192, 9));
    PrivateMounts mounts;
    if (!mounts.ReadOnly(home_)) GTEST_SKIP() << mounts.failure();
    ReadHome(home_, dir_ / "out", &log_);
  }
  EXPECT_THAT(log_, SizeIs(2));
}

TEST_F(IndexPlaceTest, AReadOnlyHomeOfARuntimeIsRead) {
  for (const std::string& release : FixtureReleases()) {
    SCOPED_TRACE(release);
    const TempDir dir;
    const fs::path home = UnpackFixtureHome(release, dir.path());
    PrivateMounts mounts;
    if (!mounts.ReadOnly(home)) GTEST_SKIP() << mounts.failure();
    Client client = LocalClient(home, &log_);
    ASSERT_EQ(Snapshot::List(kCtx, client).size(), 2U);
    for (const auto& handle : Snapshot::List(kCtx, client)) {
      EXPECT_EQ(handle.Open(kCtx).Digest(), handle.Digest());
      EXPECT_TRUE(handle.Path().starts_with(home.native()));
    }
  }
}

// A crash left a write-ahead log, without the shared-memory file that SQLite reads it with.
TEST_F(IndexPlaceTest, AReadOnlyRuntimesDatabaseWithALogIsRead) {
  const fs::path fixture = UnpackFixtureHome("0.6.18", dir_ / "fixture");
  fs::copy(fixture, home_, fs::copy_options::recursive);
  {
    base::Database db(fixture / "db/msb.db", base::Database::Mode::kReadWrite);
    db.Execute("PRAGMA journal_mode = WAL");
    db.Execute("UPDATE snapshot_index SET fstype = 'xfs'");
    for (const char* name : {"msb.db", "msb.db-wal"}) {
      fs::copy_file(fixture / "db" / name, home_ / "db" / name,
                    fs::copy_options::overwrite_existing);
    }
  }
  PrivateMounts mounts;
  if (!mounts.ReadOnly(home_)) GTEST_SKIP() << mounts.failure();
  Client client = LocalClient(home_, &log_);
  EXPECT_THAT(SnapshotNames(client), UnorderedElementsAre("plain", "labelled"));
  EXPECT_EQ(Snapshot::Get(kCtx, "plain", client).Path(), home_ / "snapshots/plain");
}

TEST_F(IndexPlaceTest, AReadOnlySnapshotsDirectoryIsBootedFromWhereTheRestIsWritable) {
  MakeSnapshots(home_, dir_ / "base.img");
  PrivateMounts mounts;
  if (!mounts.ReadOnly(home_ / "snapshots")) GTEST_SKIP() << mounts.failure();
  Client client = LocalClient(home_, &log_);
  for (const std::string name : {"parent", "child", "raw"}) {
    CreateSandbox(kCtx, "from-" + name, {WithSnapshot(name)}, client).Stop(kCtx);
  }
  EXPECT_THAT(log_, SizeIs(0));
}

TEST_F(IndexPlaceTest, AHomeOfAnotherUserIsReadAndBootedFrom) {
  if (geteuid() != 0) GTEST_SKIP() << "root is missing";
  MakeSnapshots(home_, dir_ / "base.img");
  const auto before = ListTree(home_);
  // With the log files of a process that has the index open, and without them.
  for (const bool in_use : {true, false}) {
    std::optional<Client> owner;
    if (in_use) {
      owner.emplace(LocalClient(home_));
      EXPECT_EQ(SnapshotNames(*owner).size(), 3U);
    }
    const std::string failure = RunAsAnotherUser([&] {
      std::vector<std::string> log;
      const fs::path sandboxes = dir_ / "sandboxes" / (in_use ? "1" : "2");
      ReadHome(home_, dir_ / "out", &log);
      BootFrom(home_, sandboxes, &log);
      for (const std::string& line : log) {
        if (line.find("cannot be written") == std::string::npos) throw std::runtime_error(line);
      }
    });
    if (failure.starts_with("skipped: ")) GTEST_SKIP() << failure;
    EXPECT_EQ(failure, "");
    for (const auto& entry : fs::directory_iterator(dir_ / "out")) fs::remove(entry);
  }
}

class FullDiskTest : public IndexPlaceTest {
 protected:
  static constexpr std::uint64_t kDisk = 40 << 20;

  // Makes a home with the snapshots s1 to s3 on a small file system, and fills that. Returns false
  // if it cannot be mounted.
  bool MakeFullHome() {
    if (!mounts_.Tmpfs(dir_ / "disk", kDisk)) return false;
    WriteFile(dir_ / "base.img", Noise(4 << 20, 3));
    client_.emplace(LocalClient(full_, &log_));
    CreateSandbox(kCtx, "a", {WithImage(dir_ / "base.img")}, *client_).Close();
    for (const std::string name : {"s1", "s2", "s3"}) {
      Snapshot::Create(kCtx, "a", {.name = name}, *client_);
    }
    FillDisk(dir_ / "disk");
    return true;
  }

  std::uint64_t Free() const { return fs::space(dir_ / "disk").available; }

  PrivateMounts mounts_;
  const fs::path full_ = dir_ / "disk/home";
  std::optional<Client> client_;
};

TEST_F(FullDiskTest, AFullDiskIsReadAndEmptiedByAnOpenClient) {
  if (!MakeFullHome()) GTEST_SKIP() << mounts_.failure();
  EXPECT_EQ(SnapshotNames(*client_).size(), 3U);
  EXPECT_LT(Free(), 4096U);
  Snapshot::Remove(kCtx, "s1", false, *client_);
  EXPECT_GE(Free(), 3U << 20) << "the disk of a snapshot has 4 MiB";
  EXPECT_THAT(SnapshotNames(*client_), UnorderedElementsAre("s2", "s3"));
  EXPECT_MSB_ERROR(Snapshot::Open(kCtx, "s1", *client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot at ", "/snapshots/s1");
  Snapshot::Get(kCtx, "s2", *client_).Remove(kCtx, false);
  EXPECT_THAT(SnapshotNames(*client_), UnorderedElementsAre("s3"));
  Client fresh = LocalClient(full_, &log_);
  EXPECT_THAT(SnapshotNames(fresh), UnorderedElementsAre("s3"));
}

TEST_F(FullDiskTest, AFileSystemWithoutFreeInodesIsNamedAsTheCause) {
  if (!mounts_.Tmpfs(dir_ / "disk", kDisk, 64)) GTEST_SKIP() << mounts_.failure();
  WriteFile(dir_ / "base.img", Noise(1 << 20, 3));
  {
    Client client = LocalClient(full_, &log_);
    CreateSandbox(kCtx, "a", {WithImage(dir_ / "base.img")}, client).Close();
    Snapshot::Create(kCtx, "a", {.name = "s1"}, client);
  }
  for (int i = 0; std::ofstream(dir_ / "disk" / std::to_string(i)); ++i) {
  }
  Client fresh = LocalClient(full_, &log_);
  EXPECT_THAT(SnapshotNames(fresh), UnorderedElementsAre("s1"));
  EXPECT_THAT(log_, Each(AllOf(HasSubstr((full_ / "db").native()), HasSubstr("no free inodes"))));
  EXPECT_THAT(log_, SizeIs(1));
}

// SQLite cannot even create the files with which it reads a database.
TEST_F(FullDiskTest, AFullDiskIsReadAndEmptiedByANewProcess) {
  if (!MakeFullHome()) GTEST_SKIP() << mounts_.failure();
  client_.reset();
  for (const std::string name : {"s1", "s2", "s3"}) {
    FillDisk(dir_ / "disk");
    Client fresh = LocalClient(full_, &log_);
    EXPECT_THAT(SnapshotNames(fresh), Contains(name));
    EXPECT_EQ(Snapshot::Get(kCtx, name, fresh).Name(), name);
    Client other = LocalClient(full_, &log_);
    Snapshot::Remove(kCtx, name, false, other);
    EXPECT_GE(Free(), 3U << 20) << "the disk of a snapshot has 4 MiB";
    EXPECT_THAT(SnapshotNames(other), Not(Contains(name)));
  }
  Client last = LocalClient(full_, &log_);
  EXPECT_TRUE(Snapshot::List(kCtx, last).empty());
  for (const std::string& line : log_) EXPECT_THAT(line, Not(HasSubstr("is not in the index")));
}

TEST_F(FullDiskTest, RemoveWithoutFilesToDeleteReportsTheFullDisk) {
  if (!MakeFullHome()) GTEST_SKIP() << mounts_.failure();
  fs::rename(full_ / "snapshots/s1", full_ / "moved-away");
  try {
    Snapshot::Reindex(kCtx, "", *client_);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kIO) << e.what();
    EXPECT_THAT(e.what(), AllOf(HasSubstr((full_ / "db").native()), HasSubstr("full")));
  }
}

// Whichever step finds no space, the sandbox is as before, or the snapshot is complete.
TEST_F(FullDiskTest, ASnapshotThatFindsNoSpaceLeavesTheSandboxAsItWas) {
  for (const std::uint64_t pages : {0, 1, 2, 3, 4, 5, 6, 8, 16}) {
    SCOPED_TRACE(pages);
    if (!mounts_.Tmpfs(dir_ / "disk", 20 << 20)) GTEST_SKIP() << mounts_.failure();
    WriteFile(dir_ / "base.img", Noise(1 << 20, 3));
    Client client(Config{
        .home = full_, .backend = "local", .upper_format = DiskFormat::kQcow2, .log = [](auto) {}});
    CreateSandbox(kCtx, "a", {WithImage(dir_ / "base.img")}, client).Close();
    const fs::path fill = FillDisk(dir_ / "disk");
    fs::resize_file(fill, fs::file_size(fill) - pages * 4096);
    const auto files = [&] {
      auto tree = ListTree(full_ / "sandboxes");
      tree.erase("a/sandbox.json");  // It has the time of its last change.
      return tree;
    };
    const auto before = files();
    const fs::path upper = full_ / "sandboxes/a/upper.qcow2";
    const auto mode = fs::status(upper).permissions();
    try {
      Snapshot::Create(kCtx, "a", {.name = "s"}, client);
      EXPECT_EQ(SnapshotNames(client).size(), 1U);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kIO) << e.what();
      EXPECT_THAT(e.what(), HasSubstr("No space left"));
      EXPECT_EQ(files(), before);
      EXPECT_EQ(GetSandbox(kCtx, "a", client).Upper().path, upper);
      EXPECT_EQ(fs::status(upper).permissions(), mode);
      EXPECT_EQ(fs::hard_link_count(upper), 1U);
    }
    mounts_.Undo();
  }
}

TEST_F(IndexPlaceTest, RemoveDeletesADirectoryThatItsOwnerMayNotWriteTo) {
  if (geteuid() != 0) GTEST_SKIP() << "root is missing";
  WriteFile(dir_ / "base.img", Noise(1 << 20, 3));
  const std::string failure = RunAsAnotherUser([&] {
    Client client = LocalClient(home_);
    CreateSandbox(kCtx, "a", {WithImage(dir_ / "base.img")}, client).Close();
    Snapshot::Create(kCtx, "a", {.name = "s"}, client);
    constexpr auto kWrite =
        fs::perms::owner_write | fs::perms::group_write | fs::perms::others_write;
    for (const char* name : {"snapshot.json", "upper.ext4", ""}) {
      fs::permissions(home_ / "snapshots/s" / name, kWrite, fs::perm_options::remove);
    }
    Snapshot::Remove(kCtx, "s", false, client);
    if (!Snapshot::List(kCtx, client).empty()) throw std::runtime_error("the row is still there");
    if (!fs::is_empty(home_ / "snapshots")) throw std::runtime_error("files are still there");
  });
  if (failure.starts_with("skipped: ")) GTEST_SKIP() << failure;
  EXPECT_EQ(failure, "");
}

// SQLite opens no path of more than 512 bytes.
TEST_F(IndexPlaceTest, AHomeWithALongPathHasAnIndex) {
  for (const std::size_t length : {400UL, 470UL, 500UL, 520UL, 1500UL, 3000UL}) {
    SCOPED_TRACE(length);
    const TempDir dir;
    fs::path home = dir.path();
    while (home.native().size() + 101 < length) home /= std::string(100, 'd');
    home /= std::string(length - home.native().size() - 1, 'h');
    {
      Client client = LocalClient(home, &log_);
      MakeStoppedSandbox(client, "baseline", dir / "base.img");
      Snapshot::Create(kCtx, "baseline", {.name = "a"}, client);
      Snapshot::Create(kCtx, "baseline", {.path = dir / "elsewhere"}, client);
      EXPECT_THAT(SnapshotNames(client), UnorderedElementsAre("a", "elsewhere"));
    }
    Client fresh = LocalClient(home, &log_);
    EXPECT_THAT(SnapshotNames(fresh), UnorderedElementsAre("a", "elsewhere"));
    Snapshot::Get(kCtx, "a", fresh).Remove(kCtx, false);
    EXPECT_EQ(Snapshot::Reindex(kCtx, "", fresh), 0U);
    EXPECT_THAT(SnapshotNames(fresh), UnorderedElementsAre("elsewhere"));
    EXPECT_TRUE(fs::exists(home / "db/snapshots.db"));
    EXPECT_THAT(log_, SizeIs(0));
  }
}

// A symbolic link makes a long path look short.
TEST_F(IndexPlaceTest, AShortLinkToALongPathIsThatHome) {
  fs::path home = dir_.path();
  for (int i = 0; i < 6; ++i) home /= std::string(100, 'd');
  fs::create_directories(home);
  fs::create_directory_symlink(home, dir_ / "link");
  for (const fs::path& name : {fs::path(dir_ / "link"), home}) {
    Client client = LocalClient(name, &log_);
    if (name != home) MakeStoppedSandbox(client, "baseline", dir_ / "base.img");
    Snapshot::Create(kCtx, "baseline", {.name = name == home ? "b" : "a"}, client);
  }
  Client linked = LocalClient(dir_ / "link", &log_);
  EXPECT_THAT(SnapshotNames(linked), UnorderedElementsAre("a", "b"));
  EXPECT_THAT(log_, SizeIs(0));
}

}  // namespace
}  // namespace msb::test
