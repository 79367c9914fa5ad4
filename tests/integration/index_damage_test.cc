// SPDX-License-Identifier: Apache-2.0
//
// Indexes that are damaged, of another schema, or something other than a database.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <tuple>

#include "src/base/sqlite.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr std::uint64_t kPage = 4096;

class IndexDamageTest : public ::testing::Test {
 protected:
  IndexDamageTest() {
    Client client = LocalClient(home_);
    MakeStoppedSandbox(client, "baseline", dir_ / "base.img");
    for (const std::string name : {"a", "b"}) {
      Snapshot::Create(ctx_, "baseline", {.name = name}, client);
    }
  }

  // Moves everything from the write-ahead log into the database file.
  void Checkpoint() const {
    base::Database db(index_, base::Database::Mode::kReadWrite);
    db.Execute("PRAGMA wal_checkpoint(TRUNCATE)");
  }

  std::vector<fs::path> SetAside() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(home_ / "db")) {
      const std::string name = entry.path().filename();
      if (name.starts_with("snapshots.db.damaged-") && !name.ends_with("-wal") &&
          !name.ends_with("-shm")) {
        found.push_back(entry.path());
      }
    }
    return found;
  }

  // Expects each operation to work as if nothing had happened, on a new index.
  void ExpectUsable(Client& client) {
    EXPECT_THAT(SnapshotNames(client), UnorderedElementsAre("a", "b"));
    EXPECT_EQ(Snapshot::Get(ctx_, "a", client).Name(), "a");
    const std::string digest = Snapshot::Open(ctx_, "a", client).Digest();
    EXPECT_EQ(Snapshot::Get(ctx_, digest, client).Name(), "a");
    EXPECT_EQ(Snapshot::Reindex(ctx_, "", client), 2U);
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = dir_ / "home";
  const fs::path index_ = home_ / "db/snapshots.db";
  std::vector<std::string> log_;
};

TEST_F(IndexDamageTest, DamageInAnyPageIsRepairedByTheCallThatFindsIt) {
  Checkpoint();
  const std::string sound = ReadFile(index_);
  const std::uint64_t pages = sound.size() / kPage;
  ASSERT_GE(pages, 5U);
  for (const bool noise : {false, true}) {
    for (std::uint64_t page = 0; page < pages; ++page) {
      SCOPED_TRACE("page " + std::to_string(page) + (noise ? " noise" : " zero"));
      fs::remove_all(home_ / "db");
      WriteFile(index_, sound);
      PatchFile(index_, page * kPage, noise ? Noise(kPage, 7) : std::string(kPage, '\0'));
      Client client = LocalClient(home_, &log_);
      ExpectUsable(client);
      const auto c = Snapshot::Create(ctx_, "baseline", {.name = "c"}, client);
      EXPECT_EQ(Snapshot::Get(ctx_, c.Digest(), client).Name(), "c");
      Snapshot::Remove(ctx_, c.Digest(), false, client);
      ExpectUsable(client);
      EXPECT_EQ(SetAside().size(), 1U);
    }
  }
  EXPECT_THAT(log_, Each(AllOf(HasSubstr(home_.native()), HasSubstr("set aside as"))));
}

// Replaces text in the database with text of the same length.
void Corrupt(const fs::path& database, const std::string& from, const std::string& to) {
  ASSERT_EQ(from.size(), to.size());
  std::string content = ReadFile(database);
  const std::size_t at = content.find(from);
  ASSERT_NE(at, std::string::npos);
  PatchFile(database, at, to);
}

TEST_F(IndexDamageTest, DamageInARowIsRepairedByTheCallThatReadsIt) {
  const std::string digest = [&] {
    Client client = LocalClient(home_);
    return Snapshot::Get(ctx_, "a", client).Digest();
  }();
  Checkpoint();
  const std::string sound = ReadFile(index_);
  const std::string hex = digest.substr(std::string("sha256:").size());
  const std::string other = (hex[0] == '0' ? "1" : "0") + hex.substr(1);
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"snapshots/a" + digest, "snapshots/x" + digest},
      {"snapshots/a" + digest, "sn\"pshots/a" + digest},
      {"snapshots/a" + digest, "snapshots/asha256:" + other},
      {"snapshots/a" + digest, "snapshots/asha256:z" + hex.substr(1)},
      {"snapshots/a" + digest + "a", "snapshots/a" + digest + "x"}};
  for (const auto& [from, to] : changes) {
    for (int call = 0; call < 3; ++call) {
      SCOPED_TRACE(to + " " + std::to_string(call));
      log_.clear();
      fs::remove_all(home_ / "db");
      WriteFile(index_, sound);
      Corrupt(index_, from, to);
      Client client = LocalClient(home_, &log_);
      const auto handle = call == 0 ? Snapshot::List(ctx_, client).back()
                                    : Snapshot::Get(ctx_, call == 1 ? digest : "a", client);
      EXPECT_EQ(handle.Digest(), digest);
      EXPECT_EQ(handle.Path(), home_ / "snapshots/a");
      ExpectUsable(client);
      EXPECT_THAT(log_, ElementsAre(AllOf(HasSubstr(index_.native()), HasSubstr("set aside as"),
                                          HasSubstr("damaged"))));
    }
  }
}

// The index that SQLite keeps for a column is damaged, but the rows are not.
TEST_F(IndexDamageTest, ASnapshotThatADamagedColumnIndexHidesIsFound) {
  const std::string digest = [&] {
    Client client = LocalClient(home_);
    return Snapshot::Get(ctx_, "a", client).Digest();
  }();
  Checkpoint();
  std::string content = ReadFile(index_);
  for (std::size_t at = 0; (at = content.find(digest, at)) != std::string::npos; ++at) {
    if (content.compare(at - 1, 1, "a") == 0) continue;  // This one is in the row.
    PatchFile(index_, at + digest.size() - 1, digest.back() == '0' ? "1" : "0");
  }
  Client client = LocalClient(home_, &log_);
  EXPECT_EQ(Snapshot::Get(ctx_, digest, client).Path(), home_ / "snapshots/a");
  EXPECT_THAT(log_, ElementsAre(HasSubstr("set aside as")));
}

TEST_F(IndexDamageTest, AnUnknownWriteVersionIsRepairedByTheCallThatWrites) {
  Checkpoint();
  PatchFile(index_, 18, "\x09");
  Client client = LocalClient(home_, &log_);
  Snapshot::Create(ctx_, "baseline", {.name = "c"}, client);
  EXPECT_THAT(SnapshotNames(client), UnorderedElementsAre("a", "b", "c"));
  EXPECT_THAT(log_, ElementsAre(AllOf(HasSubstr("set aside as"), HasSubstr("write version"))));
}

TEST_F(IndexDamageTest, AnIndexWithoutChecksumsGetsThem) {
  {
    base::Database db(index_, base::Database::Mode::kReadWrite);
    db.Execute("ALTER TABLE snapshot_index DROP COLUMN row_checksum");
  }
  Client client = LocalClient(home_, &log_);
  ExpectUsable(client);
  const base::Database db(index_, base::Database::Mode::kReadWrite);
  base::Statement count(db, "SELECT count(row_checksum) FROM snapshot_index");
  ASSERT_TRUE(count.Step());
  EXPECT_EQ(count.Integer(0), 2);
  EXPECT_THAT(log_, testing::IsEmpty());
}

// A connection that is already open finds the damage in the middle of a call.
TEST_F(IndexDamageTest, DamageBehindAnOpenConnectionIsRepaired) {
  Client client = LocalClient(home_, &log_);
  EXPECT_EQ(SnapshotNames(client).size(), 2U);
  {
    base::Database db(index_, base::Database::Mode::kReadWrite);
    db.Execute("DROP TABLE snapshot_index; CREATE TABLE snapshot_index (digest TEXT)");
  }
  Snapshot::Remove(ctx_, "b", false, client);
  EXPECT_THAT(SnapshotNames(client), UnorderedElementsAre("a"));
  EXPECT_EQ(log_.size(), 1U);
}

TEST_F(IndexDamageTest, AnIndexOfAnotherSchemaIsSetAside) {
  for (const char* sql : {
           "DROP TABLE snapshot_index",
           "DROP TABLE snapshot_index; CREATE TABLE snapshot_index (digest TEXT PRIMARY KEY)",
           "ALTER TABLE snapshot_index ADD COLUMN mystery TEXT; PRAGMA user_version = 77",
           "PRAGMA user_version = 1",
           "CREATE TRIGGER refuse BEFORE INSERT ON snapshot_index BEGIN SELECT RAISE(ABORT, 'no'); "
           "END",
       }) {
    SCOPED_TRACE(sql);
    log_.clear();
    { base::Database(index_, base::Database::Mode::kReadWrite).Execute(sql); }
    Client client = LocalClient(home_, &log_);
    ExpectUsable(client);
    EXPECT_EQ(log_.size(), 1U);
  }
}

TEST_F(IndexDamageTest, SetsAsideAnIndexThatIsNotARegularFile) {
  WriteFile(dir_ / "victim", "precious");
  const std::vector<std::function<void()>> places = {
      [&] { fs::create_directory(index_); },
      [&] { WriteFile(index_ / "file", "in it"); },
      [&] { fs::create_symlink(dir_ / "absent", index_); },
      [&] { fs::create_symlink(dir_ / "victim", index_); },
      [&] { fs::create_symlink("/dev/null", index_); },
      [&] { fs::create_directory(index_.native() + "-wal"); },
      [&] { fs::create_symlink(dir_ / "victim", index_.native() + "-journal"); },
  };
  for (std::size_t place = 0; place < places.size(); ++place) {
    SCOPED_TRACE(place);
    log_.clear();
    fs::remove_all(home_ / "db");
    fs::create_directory(home_ / "db");
    places[place]();
    Client client = LocalClient(home_, &log_);
    ExpectUsable(client);
    EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(index_)));
    EXPECT_EQ(log_.size(), 1U);
  }
  EXPECT_EQ(ReadFile(dir_ / "victim"), "precious");
  EXPECT_FALSE(fs::exists(dir_ / "absent"));
}

TEST_F(IndexDamageTest, OnlyTheLastThreeDamagedIndexesAreKept) {
  for (int i = 0; i < 6; ++i) {
    fs::remove_all(index_);
    WriteFile(index_, Noise(8192, static_cast<std::uint32_t>(i)));
    Client client = LocalClient(home_, &log_);
    ExpectUsable(client);
  }
  EXPECT_EQ(log_.size(), 6U);
  const auto kept = SetAside();
  ASSERT_EQ(kept.size(), 3U);
  std::vector<std::string> contents;
  for (const fs::path& path : kept) contents.push_back(ReadFile(path));
  EXPECT_THAT(contents, UnorderedElementsAre(Noise(8192, 3), Noise(8192, 4), Noise(8192, 5)));
}

TEST_F(IndexDamageTest, SeveralProcessesThatFindTheSameDamageReplaceItOnce) {
  Client one = LocalClient(home_, &log_);
  Client other = LocalClient(home_, &log_);
  EXPECT_EQ(SnapshotNames(one), SnapshotNames(other));
  { base::Database(index_, base::Database::Mode::kReadWrite).Execute("DROP TABLE snapshot_index"); }
  EXPECT_EQ(SnapshotNames(one).size(), 2U);
  EXPECT_EQ(SnapshotNames(other).size(), 2U);
  EXPECT_EQ(log_.size(), 1U);
  EXPECT_EQ(SetAside().size(), 1U);
}

class RuntimeDamageTest : public IndexDamageTest {
 protected:
  RuntimeDamageTest() {
    const fs::path fixture = UnpackFixtureHome("0.6.18", dir_ / "fixture");
    fs::remove_all(home_ / "db");
    fs::create_directory(home_ / "db");
    fs::copy(fixture / "db/msb.db", runtime_);
  }

  // Expects an error that names the file and says what to do with it.
  void ExpectRefused() {
    Client client = LocalClient(home_, &log_);
    const std::vector<std::function<void()>> calls = {
        [&] { std::ignore = Snapshot::List(ctx_, client); },
        [&] { std::ignore = Snapshot::Get(ctx_, "a", client); },
        [&] { Snapshot::Reindex(ctx_, "", client); },
        [&] { Snapshot::Remove(ctx_, "a", false, client); },
    };
    for (const auto& call : calls) {
      try {
        call();
        ADD_FAILURE() << "no error";
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::kIO) << e.what();
        EXPECT_THAT(e.what(),
                    AllOf(HasSubstr(runtime_.native()), HasSubstr("move"), HasSubstr("artifacts")));
      }
    }
    // Open needs only the artifact.
    EXPECT_EQ(Snapshot::Open(ctx_, "a", client).Path(), home_ / "snapshots/a");
    EXPECT_THAT(log_, Contains(HasSubstr(runtime_.native())));
  }

  const fs::path runtime_ = home_ / "db/msb.db";
};

TEST_F(RuntimeDamageTest, ADamagedDatabaseOfTheRuntimeIsLeftAlone) {
  const std::string damaged = Noise(3 * kPage, 3);
  fs::remove(runtime_);
  WriteFile(runtime_, damaged);
  ExpectRefused();
  EXPECT_EQ(ReadFile(runtime_), damaged);
  EXPECT_FALSE(fs::exists(index_));
}

TEST_F(RuntimeDamageTest, ARuntimesDatabaseOfAnUnknownWriteVersionIsNotBlamedOnPermissions) {
  PatchFile(runtime_, 18, "\x09");
  Client client = LocalClient(home_, &log_);
  EXPECT_MSB_ERROR(Snapshot::Reindex(ctx_, "", client), ErrorKind::kIO, runtime_.native(),
                   "unknown write version", "restore it from a backup",
                   "belongs to the microsandbox runtime");
}

TEST_F(RuntimeDamageTest, ADirectoryOrADanglingLinkInItsPlaceIsRefused) {
  fs::remove(runtime_);
  fs::create_directory(runtime_);
  ExpectRefused();
  EXPECT_TRUE(fs::is_directory(runtime_));
  fs::remove(runtime_);
  fs::create_symlink(dir_ / "absent", runtime_);
  ExpectRefused();
  EXPECT_TRUE(fs::is_symlink(runtime_));
  EXPECT_FALSE(fs::exists(index_));
  EXPECT_MSB_ERROR(Client(Config{.home = home_}), ErrorKind::kIO, "/db/msb.db", "symbolic link",
                   "restore the database");
}

TEST_F(RuntimeDamageTest, ALinkToTheRuntimesDatabaseIsFollowed) {
  fs::rename(runtime_, dir_ / "real.db");
  fs::create_symlink(dir_ / "real.db", runtime_);
  Client client = LocalClient(home_, &log_);
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client), 2U);
  EXPECT_THAT(SnapshotNames(client), UnorderedElementsAre("a", "b", "plain", "labelled"));
  EXPECT_FALSE(fs::exists(index_));
  EXPECT_EQ(std::get<std::string>(Client(Config{.home = home_}).config().backend), "microsandbox");
}

}  // namespace
}  // namespace msb::test
