// SPDX-License-Identifier: Apache-2.0

#include "src/base/sqlite.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "tests/support/support.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

Database MakeTable(const fs::path& path) {
  Database db(path, Database::Mode::kCreate);
  db.Execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)");
  return db;
}

std::int64_t CountRows(const Database& db) {
  Statement count(db, "SELECT count(*) FROM t");
  return count.Step() ? count.Integer(0) : -1;
}

TEST(SqliteTest, ReadsBackBoundValues) {
  const TempDir dir;
  const Database db = MakeTable(dir / "db");
  const std::string with_nul("a\0b", 3);
  Statement insert(db, "INSERT INTO t VALUES (?, ?)");
  insert.Bind(1, std::numeric_limits<std::int64_t>::min()).Bind(2, std::string_view(with_nul));
  insert.Run();
  insert.Bind(1, std::int64_t{1}).Bind(2, std::optional<std::string>()).Run();
  insert.Bind(1, std::int64_t{2}).Bind(2, std::optional<std::string>("x'\"\u00e9")).Run();
  insert.Bind(1, std::int64_t{3}).Bind(2, std::string_view()).Run();

  Statement select(db, "SELECT id, text FROM t ORDER BY id");
  ASSERT_TRUE(select.Step());
  EXPECT_EQ(select.Integer(0), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(select.Text(1), with_nul);
  ASSERT_TRUE(select.Step());
  EXPECT_EQ(select.OptionalText(1), std::nullopt);
  EXPECT_EQ(select.OptionalInteger(1), std::nullopt);
  EXPECT_EQ(select.Text(1), "");
  ASSERT_TRUE(select.Step());
  EXPECT_EQ(select.OptionalInteger(0), 2);
  EXPECT_EQ(select.OptionalText(1), "x'\"\u00e9");
  ASSERT_TRUE(select.Step());
  EXPECT_EQ(select.Text(1), "");
  EXPECT_FALSE(select.Step());
}

TEST(SqliteTest, DistinguishesAnEmptyTextFromNull) {
  const TempDir dir;
  const Database db = MakeTable(dir / "db");
  Statement insert(db, "INSERT INTO t VALUES (1, ?)");
  insert.Bind(1, std::optional<std::string>("")).Run();
  Statement select(db, "SELECT text FROM t");
  ASSERT_TRUE(select.Step());
  EXPECT_EQ(select.OptionalText(0), "");
}

TEST(SqliteTest, RunsAStatementAgain) {
  const TempDir dir;
  const Database db = MakeTable(dir / "db");
  Statement insert(db, "INSERT INTO t (text) VALUES (?)");
  for (int i = 0; i < 3; ++i) insert.Bind(1, std::string_view("x")).Run();
  Statement select(db, "SELECT id FROM t WHERE id > ? ORDER BY id");
  for (std::int64_t from = 0; from < 3; ++from) {
    select.Bind(1, from);
    std::int64_t rows = 0;
    while (select.Step()) ++rows;
    EXPECT_EQ(rows, 3 - from);
  }
}

TEST(SqliteTest, ForgetsATransactionThatWasNotCommitted) {
  const TempDir dir;
  Database db = MakeTable(dir / "db");
  {
    const Transaction transaction(db);
    db.Execute("INSERT INTO t VALUES (1, 'x')");
    EXPECT_EQ(CountRows(db), 1);
  }
  EXPECT_EQ(CountRows(db), 0);
  db.Execute("INSERT INTO t VALUES (1, 'x')");  // No transaction is open any more.
  EXPECT_EQ(CountRows(Database(dir / "db", Database::Mode::kReadOnly)), 1);
}

TEST(SqliteTest, ShowsOthersATransactionOnceItIsCommitted) {
  const TempDir dir;
  Database db = MakeTable(dir / "db");
  const Database other(dir / "db", Database::Mode::kReadOnly);
  {
    Transaction transaction(db);
    db.Execute("INSERT INTO t VALUES (1, 'x')");
    EXPECT_EQ(CountRows(other), 0);
    transaction.Commit();
  }
  EXPECT_EQ(CountRows(other), 1);
}

TEST(SqliteTest, RollsBackAfterAFailedStatement) {
  const TempDir dir;
  Database db = MakeTable(dir / "db");
  db.Execute("INSERT INTO t VALUES (1, 'x')");
  const auto insert_twice = [&] {
    Transaction transaction(db);
    db.Execute("INSERT INTO t VALUES (2, 'y')");
    db.Execute("INSERT INTO t VALUES (1, 'taken')");
    transaction.Commit();
  };
  EXPECT_MSB_ERROR(insert_twice(), ErrorKind::kIO, "cannot write the database ",
                   "/db: ", "use the release that created it");
  EXPECT_EQ(CountRows(db), 1);
}

TEST(SqliteTest, CreatesADatabaseOnlyIfAsked) {
  const TempDir dir;
  EXPECT_MSB_ERROR(Database(dir / "db", Database::Mode::kReadOnly), ErrorKind::kIO,
                   "cannot open the database ", "/db: ", "create it, or correct the path");
  EXPECT_MSB_ERROR(Database(dir / "db", Database::Mode::kReadWrite), ErrorKind::kIO,
                   "cannot open the database ", "/db: ", "create it, or correct the path");
  EXPECT_FALSE(fs::exists(dir / "db"));
  EXPECT_MSB_ERROR(Database(dir / "absent/db", Database::Mode::kCreate), ErrorKind::kIO,
                   "cannot open the database ", "/absent/db: ", "correct the path");
  EXPECT_MSB_ERROR(Database(dir.path(), Database::Mode::kReadWrite), ErrorKind::kIO,
                   "cannot open the database ", dir.path().filename(), "give the path of a file");
  const Database db = MakeTable(dir / "db");
  EXPECT_EQ(db.path(), dir / "db");
  EXPECT_TRUE(fs::exists(dir / "db"));
}

TEST(SqliteTest, WritesNothingWhenOnlyReading) {
  const TempDir dir;
  { MakeTable(dir / "db"); }
  Database db(dir / "db", Database::Mode::kReadOnly);
  EXPECT_MSB_ERROR(db.Execute("INSERT INTO t VALUES (1, 'x')"), ErrorKind::kIO,
                   "cannot write the database ", "/db: ");
  EXPECT_EQ(CountRows(db), 0);
}

TEST(SqliteTest, CopyingADatabaseCreatesNoLogFiles) {
  const TempDir dir;
  {
    Database db = MakeTable(dir / "db");
    db.Execute("PRAGMA journal_mode = WAL");
    db.Execute("INSERT INTO t VALUES (1, 'x')");
  }
  const auto before = test::ListTree(dir.path());
  EXPECT_EQ(CountRows(Database::CopyToMemory(dir / "db", Context::Background())), 1);
  EXPECT_EQ(test::ListTree(dir.path()), before);
  // While the files of an open connection exist, the copy includes the content of the log.
  Database open(dir / "db", Database::Mode::kReadWrite);
  open.Execute("INSERT INTO t VALUES (2, 'x')");
  EXPECT_EQ(CountRows(Database::CopyToMemory(dir / "db", Context::Background())), 2);
}

TEST(SqliteTest, RefusesAnUnknownWriteVersionAsDamage) {
  const TempDir dir;
  { MakeTable(dir / "db"); }
  test::PatchFile(dir / "db", 18, "\x09");
  Database db(dir / "db", Database::Mode::kReadWrite);
  EXPECT_EQ(CountRows(db), 0);
  try {
    db.Execute("INSERT INTO t VALUES (1, 'x')");
    ADD_FAILURE() << "no error";
  } catch (const DatabaseError& e) {
    EXPECT_EQ(e.cause(), DatabaseError::Cause::kDamaged);
    EXPECT_TRUE(test::Names(e.what(), {"cannot write the database ", "/db: ",
                                       "unknown write version", "restore it from a backup"}));
  }
}

TEST(SqliteTest, RefusesAFileThatIsNoDatabase) {
  const TempDir dir;
  const std::string content(8192, 'x');
  test::WriteFile(dir / "db", content);
  Database db(dir / "db", Database::Mode::kReadWrite);
  EXPECT_MSB_ERROR(Statement(db, "SELECT * FROM t"), ErrorKind::kIO, "cannot query the database ",
                   "/db: ", "restore it from a backup, or move it away");
  EXPECT_MSB_ERROR(db.Execute("CREATE TABLE t (id)"), ErrorKind::kIO, "cannot write the database ",
                   "/db: ", "restore it from a backup, or move it away");
  EXPECT_MSB_ERROR(Transaction{db}, ErrorKind::kIO, "cannot write the database ",
                   "/db: ", "restore it from a backup, or move it away");
  EXPECT_EQ(test::ReadFile(dir / "db"), content);
}

TEST(SqliteTest, RefusesADatabaseWithDamagedPages) {
  const TempDir dir;
  {
    Database db = MakeTable(dir / "db");
    db.Execute("INSERT INTO t VALUES (1, 'x')");
  }
  // Damages the page of the table. The first page has the schema.
  test::PatchFile(dir / "db", 4096, std::string(4096, '\xff'));
  const Database db(dir / "db", Database::Mode::kReadOnly);
  EXPECT_MSB_ERROR(CountRows(db), ErrorKind::kIO, "cannot query the database ",
                   "/db: ", "restore it from a backup, or move it away");
}

TEST(SqliteTest, RefusesADatabaseWithoutTheTable) {
  const TempDir dir;
  const Database db = MakeTable(dir / "db");
  EXPECT_MSB_ERROR(Statement(db, "SELECT * FROM other"), ErrorKind::kInternal,
                   "cannot query the database ", "/db: ", "other",
                   "use the release that created it");
}

TEST(SqliteTest, CopiesADatabaseIntoMemory) {
  const TempDir dir;
  Database db = MakeTable(dir / "db");
  db.Execute("PRAGMA journal_mode = WAL");
  db.Execute("INSERT INTO t VALUES (1, 'x')");  // In the write-ahead log only.
  Database copy = Database::CopyToMemory(dir / "db", Context::Background());
  EXPECT_EQ(CountRows(copy), 1);
  EXPECT_EQ(copy.path(), dir / "db");
  copy.Execute("INSERT INTO t VALUES (2, 'y')");
  EXPECT_EQ(CountRows(db), 1);
  EXPECT_MSB_ERROR(Database::CopyToMemory(dir / "absent", Context::Background()), ErrorKind::kIO,
                   "cannot open the database ", "/absent: ", "create it, or correct the path");
}

TEST(SqliteTest, CopyingALargeDatabaseIsCompleteUnlessCancelled) {
  const TempDir dir;
  Database db = MakeTable(dir / "db");
  Statement(db, "INSERT INTO t VALUES (1, zeroblob(10000000))").Run();
  const auto [ctx, cancel] = Context::Background().WithCancel();
  Database copy = Database::CopyToMemory(dir / "db", ctx);
  EXPECT_EQ(CountRows(copy), 1);
  cancel();
  EXPECT_MSB_ERROR(Database::CopyToMemory(dir / "db", ctx), ErrorKind::kCancelled, "cancelled");
  Statement(db, "INSERT INTO t VALUES (2, 'x')").Run();  // Neither copy has left a lock.
}

TEST(SqliteTest, CreatesNoFileForAnImmutableDatabase) {
  const TempDir dir;
  {
    Database db = MakeTable(dir / "db 100%?#");
    db.Execute("PRAGMA journal_mode = WAL");
    db.Execute("INSERT INTO t VALUES (1, 'x')");
  }
  const auto before = test::ListTree(dir.path());
  Database db(dir / "db 100%?#", Database::Mode::kImmutable);
  EXPECT_EQ(CountRows(db), 1);
  EXPECT_MSB_ERROR(db.Execute("INSERT INTO t VALUES (2, 'x')"), ErrorKind::kIO,
                   "cannot write the database ", "/db 100%?#: ");
  EXPECT_EQ(test::ListTree(dir.path()), before);
}

TEST(SqliteTest, ReportsTheCauseOfAnError) {
  const TempDir dir;
  const auto cause_of = [](const auto& call) {
    try {
      call();
    } catch (const DatabaseError& e) {
      return e.cause();
    }
    return DatabaseError::Cause::kLocked;
  };
  Database db = MakeTable(dir / "db");
  EXPECT_EQ(cause_of([&] { Statement(db, "SELECT * FROM other"); }),
            DatabaseError::Cause::kWrongSchema);
  EXPECT_EQ(cause_of([&] { db.RequireTable("other"); }), DatabaseError::Cause::kNoTable);
  db.Execute("INSERT INTO t VALUES (1, 'x')");
  EXPECT_EQ(cause_of([&] { db.Execute("INSERT INTO t VALUES (1, 'taken')"); }),
            DatabaseError::Cause::kRefused);
  EXPECT_EQ(cause_of([&] { Database(dir / "absent", Database::Mode::kReadWrite); }),
            DatabaseError::Cause::kInaccessible);
  test::WriteFile(dir / "noise", test::Noise(8192, 1));
  EXPECT_EQ(cause_of([&] { CountRows(Database(dir / "noise", Database::Mode::kReadOnly)); }),
            DatabaseError::Cause::kDamaged);
}

TEST(SqliteTest, NamesTheDatabaseInItsErrors) {
  const TempDir dir;
  try {
    const Database db(dir / "absent", Database::Mode::kReadOnly);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find((dir / "absent").native()), std::string::npos);
  }
}

}  // namespace
}  // namespace msb::base
