// SPDX-License-Identifier: Apache-2.0

#include "src/index/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/support.h"

namespace msb::index {
namespace {

using base::Database;
using base::Statement;
using testing::HasSubstr;
using testing::Not;

Database OpenFixture(const std::string& release, const test::TempDir& dir) {
  return Database(test::UnpackFixtureHome(release, dir.path()) / "db" / "msb.db",
                  Database::Mode::kReadWrite);
}

Database OpenEmpty(const test::TempDir& dir) {
  return Database(dir / "empty.db", Database::Mode::kCreate);
}

std::vector<Row> ReadAll(const Database& db) {
  std::vector<Row> rows;
  Statement statement(db, Table(db).SelectSql("ORDER BY created_at"));
  while (statement.Step()) rows.push_back(Table::ReadRow(statement));
  return rows;
}

void Insert(const Database& db, const Row& row) {
  const Table table(db);
  Statement statement(db, table.InsertSql());
  table.BindRow(statement, row);
  statement.Run();
}

// Returns the only value of a query.
std::string Query(const Database& db, const std::string& sql) {
  Statement statement(db, sql);
  EXPECT_TRUE(statement.Step()) << sql;
  return statement.OptionalText(0).value_or("NULL");
}

Row FullRow() {
  return {.digest = "sha256:1",
          .name = "new",
          .group_name = "group",
          .group_path = "/s/group",
          .snapshot_id = "snap_1",
          .parent_digest = "sha256:0",
          .image_ref = "fixture:1",
          .image_manifest_digest = "sha256:2",
          .format = "raw",
          .fstype = "ext4",
          .artifact_path = "/s/group/snap_1",
          .size_bytes = 4096,
          .created_at = *base::ParseIndexTime("2027-01-02 03:04:05.000000006"),
          .scope = "resumable",
          .state_kind = "file",
          .checkpoint_manifest_digest = "sha256:3"};
}

TEST(TableTest, DetectsTheErasOfTheReleases) {
  const std::map<std::string, Era> eras = {
      {"0.6.6", Era::kManifest}, {"0.6.18", Era::kDescriptor}, {"0.7.2", Era::kLayered}};
  for (const auto& [release, era] : eras) {
    const test::TempDir dir;
    const Database db = OpenFixture(release, dir);
    EXPECT_EQ(Table(db).era(), era) << release;
    EXPECT_NO_THROW(Table(db).CheckWritable()) << release;
  }
}

TEST(TableTest, MakesATableOfTheFirstEra) {
  const test::TempDir dir;
  Database db = OpenEmpty(dir);
  db.Execute(Table::CreationSql());
  EXPECT_EQ(Table(db).era(), Era::kManifest);
  Insert(db, FullRow());
  EXPECT_EQ(ReadAll(db).size(), 1U);
  // Creating it again changes nothing.
  db.Execute(Table::CreationSql());
  EXPECT_EQ(ReadAll(db).size(), 1U);
}

TEST(TableTest, ReadsTheRowsThatTheReleasesWrote) {
  for (const std::string& release : test::FixtureReleases()) {
    SCOPED_TRACE(release);
    const test::TempDir dir;
    const std::vector<Row> rows = ReadAll(OpenFixture(release, dir));
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[0].name, "plain");
    EXPECT_EQ(rows[1].name, "labelled");
    EXPECT_LT(rows[0].created_at.ToTimePoint(), rows[1].created_at.ToTimePoint());
    for (const Row& row : rows) {
      EXPECT_TRUE(row.digest.starts_with("sha256:"));
      EXPECT_EQ(row.image_ref, "fixture:1");
      EXPECT_EQ(row.format, "raw");
      EXPECT_EQ(row.fstype, "ext4");
      EXPECT_EQ(row.size_bytes, 16777216U);
      EXPECT_EQ(row.scope, "disk");
      EXPECT_EQ(row.state_kind, "file");
      EXPECT_TRUE(row.artifact_path.starts_with("/srv/msb/snapshots/"));
      EXPECT_EQ(row.group_name.has_value(), release == "0.7.2");
      EXPECT_EQ(row.snapshot_id.has_value(), release == "0.7.2");
    }
  }
}

TEST(TableTest, WritesEachColumnThatItsEraHas) {
  for (const std::string& release : test::FixtureReleases()) {
    SCOPED_TRACE(release);
    const test::TempDir dir;
    const Database db = OpenFixture(release, dir);
    const Era era = Table(db).era();
    Insert(db, FullRow());
    const Row row = ReadAll(db).back();
    EXPECT_EQ(row.digest, "sha256:1");
    EXPECT_EQ(row.name, "new");
    EXPECT_EQ(row.parent_digest, "sha256:0");
    EXPECT_EQ(row.image_manifest_digest, "sha256:2");
    EXPECT_EQ(row.artifact_path, "/s/group/snap_1");
    EXPECT_EQ(row.size_bytes, 4096U);
    EXPECT_EQ(base::FormatIndexTime(row.created_at), "2027-01-02 03:04:05.000000006");
    const std::string where = " FROM snapshot_index WHERE digest = 'sha256:1'";
    EXPECT_EQ(Query(db, "SELECT created_at" + where), "2027-01-02 03:04:05.000000006");
    EXPECT_EQ(Query(db, "SELECT length(indexed_at)" + where), "29");
    EXPECT_EQ(Query(db, "SELECT child_count" + where), "0");
    if (era == Era::kManifest) continue;
    EXPECT_EQ(row.scope, "resumable");
    EXPECT_EQ(row.checkpoint_manifest_digest, "sha256:3");
    EXPECT_EQ(Query(db, "SELECT locality || availability || migration_state" + where),
              "embeddedreadycanonical");
    EXPECT_EQ(Query(db, "SELECT storage_binding_id" + where), "NULL");
    EXPECT_EQ(Query(db, "SELECT migration_error_code" + where), "NULL");
    if (era == Era::kDescriptor) continue;
    EXPECT_EQ(row.group_name, "group");
    EXPECT_EQ(row.group_path, "/s/group");
    EXPECT_EQ(row.snapshot_id, "snap_1");
    EXPECT_EQ(Query(db, "SELECT descriptor_digest" + where), "sha256:1");
  }
}

TEST(TableTest, WritesACheckpointWithoutFormatAndSize) {
  for (const std::string& release : test::FixtureReleases()) {
    SCOPED_TRACE(release);
    const test::TempDir dir;
    const Database db = OpenFixture(release, dir);
    Row row = FullRow();
    row.format.clear();
    row.fstype.clear();
    row.size_bytes.reset();
    row.state_kind = "checkpoint";
    Insert(db, row);
    const Row read = ReadAll(db).back();
    EXPECT_EQ(read.format, "");
    EXPECT_EQ(read.fstype, "");
    EXPECT_EQ(read.size_bytes, std::nullopt);
    const std::string where = " FROM snapshot_index WHERE digest = 'sha256:1'";
    EXPECT_EQ(Query(db, "SELECT format" + where), release == "0.6.6" ? "" : "NULL");
  }
}

TEST(TableTest, RefusesADatabaseWithoutAnIndexThatItKnows) {
  const test::TempDir dir;
  Database db = OpenEmpty(dir);
  EXPECT_MSB_ERROR(Table{db}, ErrorKind::kUnsupportedOperation,
                   "/empty.db lacks the table 'snapshot_index'");
  db.Execute("CREATE TABLE snapshot_index (digest TEXT PRIMARY KEY, name TEXT)");
  EXPECT_MSB_ERROR(Table{db}, ErrorKind::kUnsupportedOperation, "/empty.db has no column '",
                   "update this library");
}

TEST(TableTest, LeavesOutColumnsThatItDoesNotKnowIfTheyMayBe) {
  const test::TempDir dir;
  Database db = OpenFixture("0.6.18", dir);
  db.Execute("ALTER TABLE snapshot_index ADD COLUMN later TEXT");
  db.Execute("ALTER TABLE snapshot_index ADD COLUMN flag INTEGER NOT NULL DEFAULT 7");
  EXPECT_NO_THROW(Table(db).CheckWritable());
  EXPECT_THAT(Table(db).InsertSql(), Not(HasSubstr("later")));
  Insert(db, FullRow());
  EXPECT_EQ(Query(db, "SELECT flag FROM snapshot_index WHERE digest = 'sha256:1'"), "7");
}

// Anybody may have written the database file.
TEST(TableTest, ReadsValuesOfAnyTypeWithoutHarm) {
  for (const std::string& release : test::FixtureReleases()) {
    SCOPED_TRACE(release);
    const test::TempDir dir;
    Database db = OpenFixture(release, dir);
    db.Execute(
        "UPDATE snapshot_index SET size_bytes = -1, name = x'00ff00', parent_digest = 1.5, "
        "created_at = x'ff', image_ref = 7 WHERE name = 'plain'");
    db.Execute(
        "UPDATE snapshot_index SET size_bytes = 'lots', image_manifest_digest = '', format = "
        "'tape', artifact_path = x'2f00', digest = x'' WHERE name = 'labelled'");
    const std::vector<Row> rows = ReadAll(db);
    ASSERT_EQ(rows.size(), 2U);
    const bool swapped = rows[0].format == "tape";
    const Row& plain = rows[swapped ? 1 : 0];
    const Row& labelled = rows[swapped ? 0 : 1];
    EXPECT_EQ(plain.size_bytes, std::nullopt);
    EXPECT_EQ(plain.name, std::string("\0\xff\0", 3));
    EXPECT_EQ(plain.parent_digest, "1.5");
    EXPECT_EQ(plain.image_ref, "7");
    EXPECT_EQ(plain.created_at.ToTimePoint().time_since_epoch().count(), 0);
    EXPECT_EQ(labelled.digest, "");
    EXPECT_EQ(labelled.artifact_path, std::string("/\0", 2));
    EXPECT_EQ(labelled.format, "tape");
  }
}

}  // namespace
}  // namespace msb::index
