// SPDX-License-Identifier: Apache-2.0
//
// Several threads and processes use one database as their index.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <latch>
#include <thread>

#include "src/base/digest.h"
#include "src/index/index.h"
#include "tests/support/support.h"

namespace msb::index {
namespace {

namespace fs = std::filesystem;

constexpr int kWriters = 4;
constexpr int kRowsEach = 12;

Row MakeRow(const std::string& name) {
  Row row;
  row.digest = base::Sha256Digest(name);
  row.name = name;
  row.parent_digest = "sha256:parent";
  row.image_ref = "fixture:1";
  row.image_manifest_digest = "sha256:" + std::string(64, 'a');
  row.format = "raw";
  row.fstype = "ext4";
  row.artifact_path = "/s/" + name;
  return row;
}

Index Open(const fs::path& path) {
  return path.filename() == "msb.db" ? Index::OpenRuntime(path) : Index::OpenOwn(path);
}

void UpsertSome(const fs::path& path, int writer) {
  Index index = Open(path);
  for (int i = 0; i < kRowsEach; ++i) {
    index.Upsert(MakeRow(std::to_string(writer) + "-" + std::to_string(i)));
  }
}

// Calls function(0) to function(kWriters - 1), each in a process of its own. Returns true if none
// failed.
bool InProcesses(const std::function<void(int)>& function) {
  std::vector<pid_t> children;
  for (int i = 0; i < kWriters; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        function(i);
      } catch (const std::exception& e) {
        std::fprintf(stderr, "writer %d: %s\n", i, e.what());
        _exit(1);
      }
      _exit(0);
    }
    children.push_back(child);
  }
  bool good = true;
  for (const pid_t child : children) {
    int status = -1;
    good = waitpid(child, &status, 0) == child && status == 0 && good;
  }
  return good;
}

// Does the same in threads that start at the same time.
bool InThreads(const std::function<void(int)>& function) {
  std::latch start(kWriters);
  std::atomic<int> failed = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kWriters; ++i) {
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        try {
          function(i);
        } catch (const std::exception& e) {
          std::fprintf(stderr, "writer %d: %s\n", i, e.what());
          ++failed;
        }
      });
    }
  }
  return failed == 0;
}

void ExpectAllRows(const fs::path& path, std::size_t before) {
  const Index index = Open(path);
  EXPECT_EQ(index.All().size(), before + kWriters * kRowsEach);
  for (int writer = 0; writer < kWriters; ++writer) {
    for (int i = 0; i < kRowsEach; ++i) {
      const std::string name = std::to_string(writer) + "-" + std::to_string(i);
      EXPECT_FALSE(index.WithDigest(base::Sha256Digest(name)).empty()) << name;
    }
  }
}

TEST(IndexSharingTest, ADatabaseOfItsOwnIsNotBuiltUntilThatIsSaid) {
  const test::TempDir dir;
  {
    Index index = Index::OpenOwn(dir / "snapshots.db");
    EXPECT_FALSE(index.IsBuilt());
    EXPECT_EQ(index.era(), Era::kManifest);
    EXPECT_EQ(index.path(), dir / "snapshots.db");
    EXPECT_TRUE(index.All().empty());
    index.Upsert(MakeRow("a"));
  }
  {
    Index index = Index::OpenOwn(dir / "snapshots.db");
    EXPECT_FALSE(index.IsBuilt());
    index.MarkBuilt();
  }
  const Index again = Index::OpenOwn(dir / "snapshots.db");
  EXPECT_TRUE(again.IsBuilt());
  EXPECT_EQ(again.All().at(0).name, "a");
}

TEST(IndexSharingTest, DoesNotMakeADatabaseOfTheRuntime) {
  const test::TempDir dir;
  EXPECT_MSB_ERROR(Index::OpenRuntime(dir / "msb.db"), ErrorKind::kIO, "cannot open the database ",
                   "/msb.db: ", "create it, or correct the path");
  EXPECT_FALSE(fs::exists(dir / "msb.db"));
  EXPECT_MSB_ERROR(Index::OpenOwn(dir / "gone" / "snapshots.db"), ErrorKind::kIO,
                   "/gone/snapshots.db: ", "create it, or correct the path");
}

TEST(IndexSharingTest, RefusesAFileThatIsNoDatabase) {
  const test::TempDir dir;
  test::WriteFile(dir / "msb.db", test::Noise(8192, 1));
  EXPECT_MSB_ERROR(Index::OpenRuntime(dir / "msb.db").All(), ErrorKind::kIO,
                   "cannot query the database ",
                   "/msb.db: ", "restore it from a backup, or move it away");
  EXPECT_MSB_ERROR(Index::OpenOwn(dir / "msb.db"), ErrorKind::kIO,
                   "/msb.db: ", "restore it from a backup, or move it away");
  EXPECT_EQ(test::ReadFile(dir / "msb.db"), test::Noise(8192, 1));
}

TEST(IndexSharingTest, SeesChangesOfAnotherConnectionAtOnce) {
  const test::TempDir dir;
  Index one = Open(dir / "snapshots.db");
  Index other = Open(dir / "snapshots.db");
  one.Upsert(MakeRow("a"));
  EXPECT_FALSE(other.WithName(std::nullopt, "a").empty());
  other.Erase("/s/a", "");
  EXPECT_TRUE(one.All().empty());
}

TEST(IndexSharingTest, LosesNothingThatThreadsWriteAtOnce) {
  const test::TempDir dir;
  Open(dir / "snapshots.db");
  EXPECT_TRUE(InThreads([&](int i) { UpsertSome(dir / "snapshots.db", i); }));
  ExpectAllRows(dir / "snapshots.db", 0);
}

TEST(IndexSharingTest, LosesNothingThatProcessesWriteAtOnce) {
  const test::TempDir dir;
  Open(dir / "snapshots.db");
  EXPECT_TRUE(InProcesses([&](int i) { UpsertSome(dir / "snapshots.db", i); }));
  ExpectAllRows(dir / "snapshots.db", 0);
}

TEST(IndexSharingTest, LosesNothingInADatabaseOfTheRuntime) {
  for (const std::string& release : test::FixtureReleases()) {
    SCOPED_TRACE(release);
    const test::TempDir dir;
    const fs::path path = test::UnpackFixtureHome(release, dir.path()) / "db" / "msb.db";
    EXPECT_TRUE(InProcesses([&](int i) { UpsertSome(path, i); }));
    ExpectAllRows(path, 2);
  }
}

TEST(IndexSharingTest, CountsEachChildThatIsWrittenAtOnce) {
  const test::TempDir dir;
  Row parent = MakeRow("parent");
  parent.digest = "sha256:parent";
  parent.parent_digest.reset();
  Open(dir / "snapshots.db").Upsert(parent);
  EXPECT_TRUE(InThreads([&](int i) { UpsertSome(dir / "snapshots.db", i); }));
  const base::Database db(dir / "snapshots.db", base::Database::Mode::kReadWrite);
  base::Statement count(db, "SELECT child_count FROM snapshot_index WHERE name = 'parent'");
  ASSERT_TRUE(count.Step());
  EXPECT_EQ(count.Integer(0), kWriters * kRowsEach);
}

}  // namespace
}  // namespace msb::index
