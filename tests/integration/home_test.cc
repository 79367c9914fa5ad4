// SPDX-License-Identifier: Apache-2.0
//
// Homes: where the index is, what happens when it is lost or moved, and many users at once.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <tuple>

#include "src/base/sqlite.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ::testing::UnorderedElementsAre;

class HomeTest : public ::testing::Test {
 protected:
  HomeTest() { MakeStoppedSandbox(client_, "baseline", dir_ / "base.img"); }

  SnapshotArtifact Create(const std::string& name) {
    return Snapshot::Create(ctx_, "baseline", {.name = name}, client_);
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = dir_ / "home";
  std::vector<std::string> log_;
  Client client_ = LocalClient(home_, &log_);
};

TEST_F(HomeTest, KeepsItsOwnIndexAndNeverMakesTheRuntimes) {
  Create("a");
  EXPECT_TRUE(fs::exists(home_ / "db/snapshots.db"));
  EXPECT_FALSE(fs::exists(home_ / "db/msb.db"));
}

TEST_F(HomeTest, ALostIndexIsReadAgainFromTheArtifacts) {
  Create("a");
  Create("b");
  fs::remove_all(home_ / "db");
  EXPECT_THAT(SnapshotNames(client_), UnorderedElementsAre("a", "b"));
  fs::remove_all(home_ / "db");
  Client fresh = LocalClient(home_);
  EXPECT_EQ(Snapshot::Get(ctx_, "a", fresh).Name(), "a");
}

TEST_F(HomeTest, MovesToTheRuntimesIndexOnceThereIsOne) {
  Create("a");
  Create("b");
  const fs::path other = UnpackFixtureHome("0.6.18", dir_ / "fixture");
  fs::copy(other / "db/msb.db", home_ / "db/msb.db");
  EXPECT_THAT(SnapshotNames(client_), UnorderedElementsAre("a", "b", "plain", "labelled"));
  EXPECT_FALSE(fs::exists(home_ / "db/snapshots.db"));
  Create("c");
  const base::Database db(home_ / "db/msb.db", base::Database::Mode::kReadOnly);
  base::Statement count(db, "SELECT COUNT(*) FROM snapshot_index");
  ASSERT_TRUE(count.Step());
  EXPECT_EQ(count.Integer(0), 5);
}

TEST_F(HomeTest, AnIndexThatCannotBeWrittenIsLoggedNotThrown) {
  const fs::path other = UnpackFixtureHome("0.6.18", dir_ / "fixture");
  fs::create_directories(home_ / "db");
  fs::copy(other / "db/msb.db", home_ / "db/msb.db");
  base::Database db(home_ / "db/msb.db", base::Database::Mode::kReadWrite);
  db.Execute("DROP TABLE snapshot_index");
  db.Execute("CREATE TABLE snapshot_index (digest TEXT, unknown TEXT NOT NULL)");
  const auto snapshot = Create("b");
  EXPECT_EQ(Snapshot::Open(ctx_, "b", client_).Digest(), snapshot.Digest());
  EXPECT_FALSE(log_.empty());
  EXPECT_MSB_ERROR(Snapshot::List(ctx_, client_), ErrorKind::kUnsupportedOperation,
                   "/db/msb.db has no column 'name'", "update this library");
}

// A later runtime may have a column that this library cannot fill. It may also be the first runtime
// of a home that was used without one.
TEST_F(HomeTest, AnIndexThatCannotBeWrittenIsReadBesideTheOwnOne) {
  Create("own");
  ASSERT_TRUE(fs::exists(home_ / "db/snapshots.db"));
  fs::copy(UnpackFixtureHome("0.6.18", dir_ / "fixture") / "db/msb.db", home_ / "db/msb.db");
  {
    base::Database db(home_ / "db/msb.db", base::Database::Mode::kReadWrite);
    std::string sql;
    {
      base::Statement statement(db, "SELECT sql FROM sqlite_master WHERE name = 'snapshot_index'");
      ASSERT_TRUE(statement.Step());
      sql = statement.Text(0);
    }
    db.Execute("ALTER TABLE snapshot_index RENAME TO before");
    db.Execute(sql.insert(sql.rfind(')'), ", mystery TEXT NOT NULL"));
    db.Execute("INSERT INTO snapshot_index SELECT *, 'x' FROM before; DROP TABLE before");
  }
  Client fresh = LocalClient(home_, &log_);
  EXPECT_THAT(SnapshotNames(fresh), UnorderedElementsAre("plain", "labelled"));
  EXPECT_EQ(Snapshot::Open(ctx_, "own", fresh).Path(), home_ / "snapshots/own");
  EXPECT_TRUE(fs::exists(home_ / "db/snapshots.db"));
}

TEST_F(HomeTest, OnlyARuntimeWithoutAnIndexPredatesDescriptors) {
  const fs::path database = UnpackFixtureHome("0.6.18", dir_ / "fixture") / "db/msb.db";
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"DROP TABLE snapshot_index", "manifest.json"},
      {"DROP TABLE snapshot_index; CREATE TABLE snapshot_index (digest TEXT)", "snapshot.json"},
      {"ALTER TABLE snapshot_index RENAME COLUMN image_ref TO image", "snapshot.json"}};
  for (std::size_t i = 0; i < changes.size(); ++i) {
    SCOPED_TRACE(changes[i].first);
    fs::remove_all(home_ / "db");
    fs::create_directory(home_ / "db");
    fs::copy(database, home_ / "db/msb.db");
    base::Database(home_ / "db/msb.db", base::Database::Mode::kReadWrite).Execute(changes[i].first);
    Client client = LocalClient(home_, &log_);
    const auto snapshot =
        Snapshot::Create(ctx_, "baseline", {.name = "s" + std::to_string(i)}, client);
    EXPECT_TRUE(fs::exists(fs::path(snapshot.Path()) / changes[i].second));
  }
}

TEST_F(HomeTest, OpenIndexesAMissingSnapshotAndGetDoesNot) {
  Create("a");
  fs::rename(home_ / "snapshots/a", home_ / "snapshots/b");
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "b", client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot 'b' in the index", "call Reindex");
  std::ignore = Snapshot::Open(ctx_, "b", client_);
  EXPECT_EQ(Snapshot::Get(ctx_, "b", client_).Path(), home_ / "snapshots/b");
  // An artifact outside the snapshots directory does not belong to this home.
  fs::rename(home_ / "snapshots/b", dir_ / "c");
  std::ignore = Snapshot::Open(ctx_, dir_ / "c", client_);
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, dir_ / "c", client_), ErrorKind::kSnapshotNotFound,
                   "no snapshot '" + (dir_ / "c").native() + "' in the index", "call Reindex");
}

TEST_F(HomeTest, ReindexAddsExistingSnapshotsAndDropsRemovedOnes) {
  Create("a");
  Create("b");
  const auto elsewhere = Snapshot::Create(ctx_, "baseline", {.path = dir_ / "elsewhere"}, client_);
  fs::remove_all(home_ / "snapshots/a");
  fs::create_directory(dir_ / "more");
  fs::copy(home_ / "snapshots/b", dir_ / "more/c", fs::copy_options::recursive);
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client_), 1U);
  EXPECT_THAT(SnapshotNames(client_), UnorderedElementsAre("b", "elsewhere"));
  // c is a copy of b in another directory.
  EXPECT_EQ(Snapshot::Reindex(ctx_, dir_ / "more", client_), 1U);
  EXPECT_THAT(SnapshotNames(client_), UnorderedElementsAre("b", "c", "elsewhere"));
  fs::remove_all(dir_ / "more");
  EXPECT_EQ(Snapshot::Reindex(ctx_, dir_ / "more", client_), 0U);
  EXPECT_THAT(SnapshotNames(client_), UnorderedElementsAre("b", "elsewhere"));
}

TEST_F(HomeTest, ReindexRefusesWhatIsNotADirectory) {
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client_), 0U);
  EXPECT_MSB_ERROR(Snapshot::Reindex(ctx_, dir_ / "nowhere", client_), ErrorKind::kIO,
                   (dir_ / "nowhere").native(), "correct the path");
  WriteFile(dir_ / "file", "");
  EXPECT_MSB_ERROR(Snapshot::Reindex(ctx_, dir_ / "file", client_), ErrorKind::kIO,
                   (dir_ / "file").native(), "correct the path");
}

TEST_F(HomeTest, ReindexDropsAnArtifactThatWasReplacedByALink) {
  Create("a");
  Create("b");
  fs::rename(home_ / "snapshots/a", dir_ / "moved");
  fs::create_directory_symlink(dir_ / "moved", home_ / "snapshots/a");
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client_), 1U);
  const auto handles = Snapshot::List(ctx_, client_);
  ASSERT_EQ(handles.size(), 1U);
  EXPECT_EQ(handles[0].Name(), "b");
  EXPECT_MSB_ERROR(Snapshot::Get(ctx_, "a", client_), ErrorKind::kSnapshotNotFound, "'a'");
  ASSERT_EQ(log_.size(), 1U);
  EXPECT_TRUE(Names(log_[0], {"/snapshots/a", "symbolic link", "replace it"}));
  // The snapshots directory itself may be a link.
  fs::remove(home_ / "snapshots/a");
  fs::rename(home_ / "snapshots", dir_ / "elsewhere");
  fs::create_directory_symlink(dir_ / "elsewhere", home_ / "snapshots");
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client_), 1U);
  EXPECT_EQ(Snapshot::Get(ctx_, "b", client_).Path(), home_ / "snapshots/b");
}

TEST_F(HomeTest, ReindexDoesNotReadTheDisksNorTouchTheArtifacts) {
  Create("a");
  const auto before = ListTree(home_ / "snapshots");
  WriteFile(home_ / "snapshots/broken/snapshot.json", "{");
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client_), 1U);
  fs::remove_all(home_ / "snapshots/broken");
  EXPECT_EQ(ListTree(home_ / "snapshots"), before);
  EXPECT_EQ(log_.size(), 1U);
}

TEST_F(HomeTest, AMovedHomeIsCompleteAfterReindex) {
  const auto snapshot = Create("a");
  fs::rename(home_, dir_ / "moved");
  Client moved = LocalClient(dir_ / "moved");
  EXPECT_EQ(Snapshot::Open(ctx_, "a", moved).Digest(), snapshot.Digest());
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", moved), 1U);
  EXPECT_EQ(Snapshot::Get(ctx_, snapshot.Digest(), moved).Path(), dir_ / "moved/snapshots/a");
  ASSERT_EQ(Snapshot::List(ctx_, moved).size(), 1U);
}

TEST_F(HomeTest, RemoveByDigestFindsTheArtifactInAMovedHome) {
  const auto snapshot = Create("a");
  fs::rename(home_, dir_ / "moved");
  Client moved = LocalClient(dir_ / "moved");
  Snapshot::Remove(ctx_, snapshot.Digest(), false, moved);
  EXPECT_FALSE(fs::exists(dir_ / "moved/snapshots/a"));
  EXPECT_TRUE(Snapshot::List(ctx_, moved).empty());
}

TEST_F(HomeTest, RemoveDoesNotTrustTheRow) {
  const auto snapshot = Create("a");
  WriteFile(dir_ / "victim/file", "precious");
  base::Database db(home_ / "db/snapshots.db", base::Database::Mode::kReadWrite);
  db.Execute("UPDATE snapshot_index SET row_checksum = NULL, artifact_path = '" +
             (dir_ / "victim").native() + "'");
  Snapshot::Get(ctx_, "a", client_).Remove(ctx_, true);
  EXPECT_EQ(ReadFile(dir_ / "victim/file"), "precious");
  EXPECT_FALSE(fs::exists(home_ / "snapshots/a"));
  // Nor may a row with the path of another snapshot delete that snapshot.
  const auto b = Create("b");
  Create("c");
  db.Execute("UPDATE snapshot_index SET row_checksum = NULL, artifact_path = '" +
             (home_ / "snapshots/c").native() + "', name = NULL WHERE name = 'b'");
  Snapshot::Remove(ctx_, b.Digest(), true, client_);
  EXPECT_TRUE(fs::exists(home_ / "snapshots/c"));
}

TEST_F(HomeTest, AProjectWithAManifestOfItsOwnIsNoSnapshot) {
  for (const std::string manifest : {"manifest.json", "snapshot.json"}) {
    WriteFile(dir_ / "project" / manifest, R"({"manifest_version":3,"name":"extension"})");
    WriteFile(dir_ / "project/src/main.js", "precious");
    const auto before = ListTree(dir_ / "project");
    EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, dir_ / "project", true, client_),
                     ErrorKind::kSnapshotNotFound,
                     "no snapshot '" + (dir_ / "project").native() + "'");
    EXPECT_MSB_ERROR(
        Snapshot::Create(ctx_, "baseline", {.path = dir_ / "project", .force = true}, client_),
        ErrorKind::kSnapshotAlreadyExists, "/project exists and is a directory, not a snapshot",
        "choose another name");
    EXPECT_EQ(ListTree(dir_ / "project"), before);
    fs::remove_all(dir_ / "project");
  }
}

TEST_F(HomeTest, MembersOfGroupsAreSafeInAnyIndex) {
  const fs::path other = UnpackFixtureHome("0.7.2", dir_ / "fixture");
  fs::create_directory(home_ / "snapshots");
  fs::copy(other / "snapshots/baseline", home_ / "snapshots/group", fs::copy_options::recursive);
  Create("plain");
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client_), 3U);
  EXPECT_THAT(SnapshotNames(client_),
              UnorderedElementsAre("plain", "group:plain", "group:labelled"));
  const auto before = ListTree(home_ / "snapshots");
  for (const std::string key : {"group:plain", "group:labelled", "group"}) {
    const auto handle = Snapshot::Get(ctx_, key, client_);
    EXPECT_EQ(Snapshot::Open(ctx_, key, client_).Digest(), handle.Digest()) << key;
    EXPECT_MSB_ERROR(Snapshot::Remove(ctx_, key, true, client_), ErrorKind::kUnsupportedOperation,
                     "snapshot '" + key + "' belongs to a group",
                     "remove it with 'msb snapshot remove'");
    EXPECT_MSB_ERROR(handle.Remove(ctx_, true), ErrorKind::kUnsupportedOperation,
                     "/snapshots/group/snap_", "belongs to a group",
                     "remove it with 'msb snapshot remove'");
  }
  EXPECT_EQ(ListTree(home_ / "snapshots"), before);
}

TEST_F(HomeTest, SnapshotsElsewhereDoNotTakeNamesFromTheHome) {
  const auto here = Create("same");
  const auto there =
      Snapshot::Create(ctx_, "baseline", {.path = dir_ / "elsewhere/../same"}, client_);
  EXPECT_EQ(Snapshot::Get(ctx_, "same", client_).Digest(), here.Digest());
  EXPECT_EQ(Snapshot::Get(ctx_, there.Digest(), client_).Name(), std::nullopt);
  Snapshot::Remove(ctx_, "same", false, client_);
  EXPECT_EQ(Snapshot::Open(ctx_, there.Path(), client_).Digest(), there.Digest());
}

TEST_F(HomeTest, ACopyOfASnapshotIsRemovedWithoutTheOriginalsRow) {
  const auto snapshot = Create("a");
  fs::copy(home_ / "snapshots/a", home_ / "snapshots/copy", fs::copy_options::recursive);
  Snapshot::Remove(ctx_, "copy", false, client_);
  EXPECT_EQ(Snapshot::Get(ctx_, "a", client_).Digest(), snapshot.Digest());
  EXPECT_FALSE(fs::exists(home_ / "snapshots/copy"));
}

TEST_F(HomeTest, ACancelledFirstReadingOfTheArtifactsIsDoneAgain) {
  for (const std::string name : {"a", "b", "c"}) Create(name);
  fs::remove_all(home_ / "db");
  Client fresh = LocalClient(home_);
  // The first reading may have created the database before it was cancelled.
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(Snapshot::List(ctx, fresh), ErrorKind::kCancelled, "cancelled");
  fs::create_directories(home_ / "db");
  { base::Database(home_ / "db/snapshots.db", base::Database::Mode::kCreate).Execute("VACUUM"); }
  EXPECT_EQ(SnapshotNames(fresh).size(), 3U);
}

TEST_F(HomeTest, ADamagedIndexOfItsOwnIsMadeAnew) {
  Create("a");
  Client fresh = LocalClient(home_, &log_);
  fs::remove_all(home_ / "db");
  WriteFile(home_ / "db/snapshots.db", Noise(20'000, 5));
  EXPECT_THAT(SnapshotNames(fresh), UnorderedElementsAre("a"));
  EXPECT_FALSE(log_.empty());
}

TEST_F(HomeTest, WaitingForAnotherProcessEndsWithTheDeadline) {
  Create("a");
  base::Database db(home_ / "db/snapshots.db", base::Database::Mode::kReadWrite);
  db.Execute("BEGIN IMMEDIATE");
  const Context soon = ctx_.WithTimeout(std::chrono::milliseconds(50));
  EXPECT_MSB_ERROR(Snapshot::Reindex(soon, "", client_), ErrorKind::kCancelled,
                   "deadline exceeded");
  db.Execute("ROLLBACK");
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client_), 1U);
}

TEST_F(HomeTest, TheLogMayCallTheLibrary) {
  Create("a");
  WriteFile(home_ / "snapshots/broken/snapshot.json", "{");
  int calls = 0;
  std::optional<Client> client;
  client.emplace(Config{.home = home_, .backend = "local", .log = [&](std::string_view) {
                          ++calls;
                          std::ignore = Snapshot::List(ctx_, *client);
                          throw std::runtime_error("a log that fails");
                        }});
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", *client), 1U);
  EXPECT_EQ(calls, 1);
}

TEST_F(HomeTest, StaleStagesOfCrashedProcessesAreSwept) {
  WriteFile(home_ / "snapshots/.msb-stage-0123456789abcdef/upper.ext4", "half");
  Create("a");
  EXPECT_FALSE(fs::exists(home_ / "snapshots/.msb-stage-0123456789abcdef"));
}

TEST_F(HomeTest, ManyThreadsShareAClient) {
  std::atomic<int> failures = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 8; ++i) {
          const std::string name = "s" + std::to_string(t) + "-" + std::to_string(i);
          try {
            const auto snapshot = Create(name);
            if (Snapshot::Open(ctx_, name, client_).Digest() != snapshot.Digest()) ++failures;
            if (Snapshot::Get(ctx_, snapshot.Digest(), client_).Name() != name) ++failures;
            std::ignore = Snapshot::List(ctx_, client_);
            if (i % 2 == 1) Snapshot::Remove(ctx_, name, false, client_);
          } catch (const Error& e) {
            ADD_FAILURE() << e.what();
            ++failures;
          }
        }
      });
    }
  }
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(SnapshotNames(client_).size(), 16U);
  EXPECT_TRUE(log_.empty()) << log_[0];
}

TEST_F(HomeTest, ManyProcessesShareAHome) {
  constexpr int kProcesses = 4;
  constexpr int kSnapshots = 6;
  fs::remove_all(home_ / "db");
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        std::vector<std::string> log;
        Client own = LocalClient(home_, &log);
        for (int i = 0; i < kSnapshots; ++i) {
          const std::string name = "p" + std::to_string(p) + "-" + std::to_string(i);
          Snapshot::Create(ctx_, "baseline", {.name = name}, own);
          Snapshot::Reindex(ctx_, "", own);
        }
        _exit(log.empty() ? 0 : 1);
      } catch (const std::exception&) {
        _exit(2);
      }
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(SnapshotNames(client_).size(), static_cast<std::size_t>(kProcesses * kSnapshots));
}

TEST_F(HomeTest, OfManyCreatorsOfANameOneWins) {
  std::atomic<int> created = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        try {
          Create("same");
          ++created;
        } catch (const Error& e) {
          EXPECT_EQ(e.kind(), ErrorKind::kSnapshotAlreadyExists) << e.what();
        }
      });
    }
  }
  EXPECT_EQ(created, 1);
  EXPECT_EQ(ListTree(home_ / "snapshots").size(), 3U);
}

TEST_F(HomeTest, TheEnvironmentDeterminesTheHome) {
  setenv("MSB_HOME", home_.c_str(), 1);
  setenv("MSB_BACKEND", "local", 1);
  const Client client;
  EXPECT_EQ(client.config().home, home_);
  EXPECT_EQ(client.config().snapshots_dir, home_ / "snapshots");
  EXPECT_EQ(client.config().sandboxes_dir, home_ / "sandboxes");
  EXPECT_EQ(client.config().cache_dir, home_ / "cache");
  EXPECT_EQ(std::get<std::string>(client.config().backend), "local");
  unsetenv("MSB_BACKEND");
  EXPECT_EQ(std::get<std::string>(Client().config().backend), "local");
  UnpackFixtureHome("0.6.6", dir_ / "fixture");
  setenv("MSB_HOME", (dir_ / "fixture/msb").c_str(), 1);
  EXPECT_EQ(std::get<std::string>(Client().config().backend), "microsandbox");
  unsetenv("MSB_HOME");
  setenv("HOME", dir_.path().c_str(), 1);
  EXPECT_EQ(Client().config().home, dir_ / ".microsandbox");
}

}  // namespace
}  // namespace msb::test
