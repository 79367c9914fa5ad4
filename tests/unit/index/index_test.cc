// SPDX-License-Identifier: Apache-2.0

#include "src/index/index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/digest.h"
#include "tests/support/support.h"

namespace msb::index {
namespace {

namespace fs = std::filesystem;
using base::Database;
using base::Statement;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

// Uses a database that each of the releases made.
class IndexTest : public testing::TestWithParam<std::string> {
 protected:
  // Returns a row of an artifact that does not exist; in the layered era, of a group member.
  Row MakeRow(const std::string& name, int minute = 0) const {
    Row row;
    row.digest = base::Sha256Digest(name);
    row.name = name;
    if (Layered()) {
      row.group_name = "group";
      row.group_path = (snapshots_ / "group").native();
    }
    row.snapshot_id = "snap_" + name;
    row.image_ref = "fixture:1";
    row.image_manifest_digest = "sha256:" + std::string(64, 'a');
    row.format = "raw";
    row.fstype = "ext4";
    row.artifact_path = (snapshots_ / "group" / name).native();
    row.size_bytes = 4096;
    row.created_at = *base::ParseIndexTime("2027-01-01 00:00:00.5");
    row.created_at.seconds += std::chrono::minutes(minute);
    return row;
  }

  Row MakeChild(const std::string& name, const Row& parent) const {
    Row row = MakeRow(name);
    row.parent_digest = Layered() ? *parent.snapshot_id : parent.digest;
    return row;
  }

  bool Layered() const { return index_.era() == Era::kLayered; }

  std::optional<Row> Find(const std::string& name) const {
    std::vector<Row> rows =
        index_.WithName(Layered() ? std::optional<std::string>("group") : std::nullopt, name);
    return rows.empty() ? std::nullopt : std::optional(std::move(rows.front()));
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const Row& row : index_.All()) names.push_back(row.name.value_or("-"));
    return names;
  }

  std::int64_t ChildCount(const Row& row) const {
    const Database db(database_, Database::Mode::kReadOnly);
    Statement statement(db, "SELECT child_count FROM snapshot_index WHERE artifact_path = ?1");
    statement.Bind(1, std::string_view(row.artifact_path));
    return statement.Step() ? statement.Integer(0) : -1;
  }

  void Execute(const std::string& sql) {
    Database(database_, Database::Mode::kReadWrite).Execute(sql);
  }

  test::TempDir dir_;
  const fs::path home_ = test::UnpackFixtureHome(GetParam(), dir_.path());
  const fs::path database_ = home_ / "db" / "msb.db";
  const fs::path snapshots_ = home_ / "snapshots";
  Index index_ = Index::OpenRuntime(database_);
};

INSTANTIATE_TEST_SUITE_P(Releases, IndexTest, testing::ValuesIn(test::FixtureReleases()),
                         [](const auto& release) {
                           std::string name = "Release_" + release.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST_P(IndexTest, FindsRowsOfTheReleaseByEachKey) {
  const std::vector<Row> all = index_.All();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].name, "labelled");
  for (const Row& row : all) {
    EXPECT_EQ(index_.WithDigest(row.digest).at(0).artifact_path, row.artifact_path);
    EXPECT_EQ(index_.FindByPath(row.artifact_path)->digest, row.digest);
    EXPECT_EQ(index_.WithName(row.group_name, *row.name).at(0).digest, row.digest);
  }
  if (Layered()) {
    EXPECT_EQ(index_.FindBySnapshotId("baseline", *all[1].snapshot_id)->name, "plain");
    EXPECT_EQ(index_.ChildrenOf(all[1]).at(0).name, "labelled");
  }
}

TEST_P(IndexTest, FindsNothingUnderAnotherKey) {
  ASSERT_EQ(index_.All().size(), 2U);
  EXPECT_THAT(index_.WithDigest("sha256:0"), IsEmpty());
  EXPECT_THAT(index_.WithDigest("plain"), IsEmpty());
  EXPECT_EQ(index_.FindByPath("/srv/msb/snapshots"), std::nullopt);
  EXPECT_THAT(index_.WithName(std::nullopt, "gone"), IsEmpty());
  EXPECT_THAT(index_.WithName("gone", "plain"), IsEmpty());
  EXPECT_THAT(index_.WithName(std::nullopt, ""), IsEmpty());
  EXPECT_EQ(index_.FindBySnapshotId("baseline", "snap_gone"), std::nullopt);
}

TEST_P(IndexTest, FindsARowThatWasAdded) {
  const Row row = MakeRow("new");
  index_.Upsert(row);
  EXPECT_EQ(index_.WithDigest(row.digest).at(0).name, "new");
  EXPECT_EQ(index_.FindByPath(row.artifact_path)->digest, row.digest);
  EXPECT_EQ(Find("new")->digest, row.digest);
  if (Layered()) {
    EXPECT_EQ(index_.FindBySnapshotId("group", "snap_new")->digest, row.digest);
  }
  EXPECT_EQ(index_.All().size(), 3U);
}

TEST_P(IndexTest, ListsTheNewestFirst) {
  index_.Upsert(MakeRow("a", 1));
  index_.Upsert(MakeRow("c", 3));
  index_.Upsert(MakeRow("b", 2));
  Row nanosecond = MakeRow("b2", 2);
  nanosecond.created_at.nanoseconds += 1;
  index_.Upsert(nanosecond);
  EXPECT_THAT(Names(), ElementsAre("c", "b2", "b", "a", "labelled", "plain"));
}

TEST_P(IndexTest, ReplacesTheRowOfTheSamePath) {
  index_.Upsert(MakeRow("old"));
  Row row = MakeRow("new");
  row.artifact_path = MakeRow("old").artifact_path;
  index_.Upsert(row);
  EXPECT_THAT(Names(), ElementsAre("new", "labelled", "plain"));
}

TEST_P(IndexTest, ReplacesTheRowOfTheSameName) {
  index_.Upsert(MakeRow("old"));
  Row row = MakeRow("new");
  row.name = "old";
  index_.Upsert(row);
  EXPECT_EQ(Find("old")->digest, row.digest);
  EXPECT_EQ(index_.All().size(), 3U);
}

TEST_P(IndexTest, ReplacesTheRowOfTheSameDigestWhoseArtifactIsGone) {
  index_.Upsert(MakeRow("old"));
  Row row = MakeRow("new");
  row.digest = MakeRow("old").digest;
  index_.Upsert(row);
  EXPECT_THAT(Names(), ElementsAre("new", "labelled", "plain"));
}

TEST_P(IndexTest, KeepsTwoArtifactsOfOneDigestWhereTheEraCan) {
  test::WriteFile(fs::path(MakeRow("old").artifact_path) / "snapshot.json", "{}");
  index_.Upsert(MakeRow("old"));
  Row row = MakeRow("new");
  row.digest = MakeRow("old").digest;
  index_.Upsert(row);
  if (Layered()) {
    EXPECT_THAT(Names(), UnorderedElementsAre("old", "new", "labelled", "plain"));
  } else {
    EXPECT_THAT(Names(), ElementsAre("new", "labelled", "plain"));
  }
}

TEST_P(IndexTest, ReplacesEachOfSeveralRowsInTheWayOfOne) {
  index_.Upsert(MakeRow("by-name"));
  index_.Upsert(MakeRow("by-path"));
  index_.Upsert(MakeRow("by-digest"));
  Row row = MakeRow("new");
  row.name = "by-name";
  row.artifact_path = MakeRow("by-path").artifact_path;
  row.digest = MakeRow("by-digest").digest;
  index_.Upsert(row);
  EXPECT_THAT(Names(), ElementsAre("by-name", "labelled", "plain"));
}

TEST_P(IndexTest, TakesTwoOfOneNameInDifferentGroupsOnly) {
  Row row = MakeRow("new");
  row.name = "plain";
  index_.Upsert(row);
  EXPECT_EQ(Find("plain")->digest, row.digest);
  EXPECT_EQ(index_.All().size(), Layered() ? 3U : 2U);
  EXPECT_EQ(!index_.WithName("baseline", "plain").empty(), Layered());
}

TEST_P(IndexTest, TakesRowsWithoutANameSideBySide) {
  for (const char* name : {"a", "b"}) {
    Row row = MakeRow(name);
    row.name.reset();
    row.group_name.reset();
    row.group_path.reset();
    index_.Upsert(row);
  }
  EXPECT_THAT(Names(), ElementsAre("-", "-", "labelled", "plain"));
}

TEST_P(IndexTest, CountsTheChildrenOfARow) {
  const Row parent = MakeRow("parent");
  const Row other = MakeRow("other");
  index_.Upsert(MakeChild("early", parent));  // A child may be found before its parent.
  index_.Upsert(parent);
  index_.Upsert(other);
  EXPECT_EQ(ChildCount(parent), 1);
  index_.Upsert(MakeChild("late", parent));
  EXPECT_EQ(ChildCount(parent), 2);
  EXPECT_EQ(index_.ChildrenOf(parent).size(), 2U);
  EXPECT_THAT(index_.ChildrenOf(other), IsEmpty());

  index_.Upsert(MakeChild("late", other));
  EXPECT_EQ(ChildCount(parent), 1);
  EXPECT_EQ(ChildCount(other), 1);
  index_.Upsert(parent);
  EXPECT_EQ(ChildCount(parent), 1);

  index_.Erase(MakeRow("early").artifact_path, "");
  EXPECT_EQ(ChildCount(parent), 0);
  EXPECT_EQ(ChildCount(other), 1);
}

TEST_P(IndexTest, ErasesTheOneRowOfAPath) {
  index_.Upsert(MakeRow("a"));
  index_.Upsert(MakeRow("b"));
  index_.Erase(MakeRow("a").artifact_path, "");
  EXPECT_EQ(Find("a"), std::nullopt);
  EXPECT_NE(Find("b"), std::nullopt);
  EXPECT_NO_THROW(index_.Erase("/gone", ""));
  EXPECT_EQ(index_.All().size(), 3U);
}

TEST_P(IndexTest, RebuildAddsFoundRowsAndDropsMissingOnesBelowItsDirectory) {
  test::WriteFile(fs::path(MakeRow("kept").artifact_path) / "snapshot.json", "{}");
  index_.Upsert(MakeRow("kept"));
  index_.Upsert(MakeRow("gone"));
  Row sibling = MakeRow("sibling");
  sibling.artifact_path = snapshots_.native() + "-other/sibling";
  index_.Upsert(sibling);
  EXPECT_EQ(index_.Rebuild(snapshots_, {MakeRow("new", 1)}), 1U);
  // Rows in other directories stay although their artifacts are gone: their disk may be absent.
  EXPECT_THAT(Names(), UnorderedElementsAre("new", "kept", "sibling", "labelled", "plain"));
  EXPECT_EQ(index_.Rebuild("/srv/msb/snapshots", {}), 0U);
  EXPECT_THAT(Names(), UnorderedElementsAre("new", "kept", "sibling"));
}

TEST_P(IndexTest, RebuildCountsChildrenAnew) {
  const Row parent = MakeRow("parent");
  index_.Upsert(parent);
  Execute("UPDATE snapshot_index SET child_count = 77");
  index_.Rebuild(snapshots_, {MakeChild("a", parent), parent, MakeChild("b", parent)});
  EXPECT_EQ(ChildCount(parent), 2);
  EXPECT_EQ(ChildCount(MakeRow("a")), 0);
  EXPECT_EQ(ChildCount(index_.FindByPath(index_.All().back().artifact_path).value()),
            Layered() ? 1 : 0);
}

TEST_P(IndexTest, RebuildLetsTheLaterOfTwoRowsOfOneNameCount) {
  Row first = MakeRow("first");
  Row second = MakeRow("second");
  first.name = second.name = "same";
  EXPECT_EQ(index_.Rebuild(snapshots_, {first, MakeRow("other"), second}), 2U);
  EXPECT_EQ(Find("same")->digest, second.digest);
  EXPECT_THAT(index_.WithDigest(first.digest), IsEmpty());
}

TEST_P(IndexTest, RebuildLetsTheLaterOfTwoRowsOfOneDigestCountWhereOnlyOneCanBe) {
  Row first = MakeRow("first");
  Row second = MakeRow("second");
  second.digest = first.digest;
  EXPECT_EQ(index_.Rebuild(snapshots_, {first, second}), Layered() ? 2U : 1U);
  EXPECT_EQ(Find("second")->digest, first.digest);
  EXPECT_EQ(Find("first").has_value(), Layered());
}

TEST_P(IndexTest, RebuildTwiceChangesNothing) {
  const std::vector<Row> rows = {MakeRow("a", 1), MakeRow("b", 2)};
  EXPECT_EQ(index_.Rebuild(snapshots_, rows), 2U);
  EXPECT_EQ(index_.Rebuild(snapshots_, rows), 2U);
  EXPECT_THAT(Names(), ElementsAre("b", "a", "labelled", "plain"));
}

TEST_P(IndexTest, ReadsButDoesNotWriteATableWithAColumnThatItCannotFill) {
  std::string sql;
  {
    const Database db(database_, Database::Mode::kReadOnly);
    Statement statement(db, "SELECT sql FROM sqlite_master WHERE name = 'snapshot_index'");
    ASSERT_TRUE(statement.Step());
    sql = statement.Text(0);
  }
  Execute("ALTER TABLE snapshot_index RENAME TO before");
  Execute(sql.insert(sql.rfind(')'), ", mystery TEXT NOT NULL"));
  Execute("INSERT INTO snapshot_index SELECT *, 'x' FROM before; DROP TABLE before");
  EXPECT_THAT(Names(), ElementsAre("labelled", "plain"));
  EXPECT_MSB_ERROR(index_.Upsert(MakeRow("plain")), ErrorKind::kUnsupportedOperation,
                   "/msb.db: its column 'mystery' is unknown", "use the runtime that created it");
  EXPECT_MSB_ERROR(index_.Rebuild("/srv/msb/snapshots", {MakeRow("new")}),
                   ErrorKind::kUnsupportedOperation, "/msb.db: its column 'mystery' is unknown",
                   "use the runtime that created it");
  EXPECT_THAT(Names(), ElementsAre("labelled", "plain"));
  EXPECT_NE(Find("labelled").has_value(), Layered());
}

TEST_P(IndexTest, RefusesADatabaseWhoseTableIsGone) {
  Execute("DROP TABLE snapshot_index");
  EXPECT_MSB_ERROR(index_.All(), ErrorKind::kUnsupportedOperation,
                   "/msb.db lacks the table 'snapshot_index'", "restore it from a copy");
  EXPECT_MSB_ERROR(index_.WithDigest("sha256:0"), ErrorKind::kUnsupportedOperation,
                   "/msb.db lacks the table 'snapshot_index'", "restore it from a copy");
  EXPECT_MSB_ERROR(index_.Upsert(MakeRow("new")), ErrorKind::kUnsupportedOperation,
                   "/msb.db lacks the table 'snapshot_index'", "restore it from a copy");
  EXPECT_MSB_ERROR(index_.Rebuild(snapshots_, {}), ErrorKind::kUnsupportedOperation,
                   "/msb.db lacks the table 'snapshot_index'", "restore it from a copy");
}

TEST_P(IndexTest, ChangesNothingWhenARowCannotBeWritten) {
  Execute(
      "CREATE TRIGGER refuse BEFORE INSERT ON snapshot_index WHEN NEW.image_ref = 'bad' "
      "BEGIN SELECT RAISE(ABORT, 'refused'); END");
  Row bad = MakeRow("bad");
  bad.artifact_path = index_.All().front().artifact_path;
  bad.image_ref = "bad";
  EXPECT_MSB_ERROR(index_.Upsert(bad), ErrorKind::kIO, "the database ", "/msb.db: refused");
  EXPECT_MSB_ERROR(index_.Rebuild("/srv/msb/snapshots", {MakeRow("good"), bad}), ErrorKind::kIO,
                   "the database ", "/msb.db: refused");
  EXPECT_THAT(Names(), ElementsAre("labelled", "plain"));
  index_.Upsert(MakeRow("good"));
  EXPECT_THAT(Names(), ElementsAre("good", "labelled", "plain"));
}

TEST_P(IndexTest, IsNotHarmedByValuesOfWrongTypes) {
  Execute(
      "UPDATE snapshot_index SET size_bytes = 'lots', name = x'00ff', created_at = x'ff', "
      "artifact_path = x'2f00' WHERE name = 'plain'");
  Execute(
      "UPDATE snapshot_index SET size_bytes = -1, parent_digest = x'00' "
      "WHERE name = 'labelled'");
  EXPECT_EQ(index_.All().size(), 2U);
  for (const Row& row : index_.All()) {
    EXPECT_THAT(index_.ChildrenOf(row), IsEmpty());
    EXPECT_NO_THROW(index_.FindByPath(row.artifact_path));
  }
  index_.Upsert(MakeRow("new"));
  EXPECT_NE(Find("new"), std::nullopt);
  EXPECT_EQ(index_.Rebuild(snapshots_, {MakeRow("newer")}), 1U);
  EXPECT_NE(Find("newer"), std::nullopt);
}

}  // namespace
}  // namespace msb::index
