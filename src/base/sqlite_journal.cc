// SPDX-License-Identifier: Apache-2.0
//
// Chooses the journal of a database: a write-ahead log, or a rollback journal.

#include <sqlite3.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>

#include "src/base/call_scope.h"
#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/sqlite.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

// Returns true if only one kernel uses the file system at a time. The shared memory of a log is not
// shared between hosts: https://sqlite.org/wal.html
bool IsOfOneHost(const std::filesystem::path& path) {
  const UniqueFd dir = OpenDirectory(path.parent_path());
  return IsLocalFileSystem(dir.get()) || IsOverlayFileSystem(dir.get());
}

}  // namespace

Database Database::OpenJournaled(const std::filesystem::path& path, const Context& ctx) {
  if (std::optional<Database> db = TryOpenJournaled(path, ctx)) return *std::move(db);
  {
    // A connection that excludes all others reads the log without shared memory. It is closed at
    // once, because in this locking mode it keeps its lock.
    Database converted(path, Mode::kCreate);
    converted.Bind(ctx);
    converted.Execute("PRAGMA locking_mode = EXCLUSIVE");
    converted.Execute("PRAGMA journal_mode = DELETE");
  }
  LogOnce("shared mappings " + path.native(),
          "the file system of " + path.native() +
              " lacks shared mappings (mmap), so the index there uses a rollback journal from now "
              "on: calls that read the index wait for calls that change it");
  Database db(path, Mode::kCreate);
  db.Bind(ctx);
  return db;
}

std::optional<Database> Database::TryOpenJournaled(const std::filesystem::path& path,
                                                   const Context& ctx) {
  // A program below this mount may be using the log, and its locks may not be seen here.
  std::error_code failure;
  const std::uintmax_t log_bytes = std::filesystem::file_size(path.native() + "-wal", failure);
  const bool has_log = !failure && log_bytes > 0;
  std::optional<Database> db(std::in_place, path, Mode::kCreate);
  db->Bind(ctx);
  try {
    db->PrepareJournal();
  } catch (const DatabaseError&) {
    if (has_log || !db->LacksSharedMappings()) throw;
    db.reset();
  }
  return db;
}

void Database::PrepareJournal() {
  const bool is_new = [&] {
    Statement pages(*this, "PRAGMA page_count");
    return pages.Step() && pages.Integer(0) == 0;
  }();
  if (is_new && IsOfOneHost(path_)) Execute("PRAGMA journal_mode = WAL");
  // SQLite maps the shared memory of a log when the database is first read.
  Execute("SELECT 1 FROM sqlite_master");
  const bool has_log = [&] {
    Statement mode(*this, "PRAGMA journal_mode");
    return mode.Step() && mode.Text(0) == "wal";
  }();
  // A crash of the machine may lose the last transactions of the log, but does not damage the
  // database. With a rollback journal, only the default, FULL, has that property.
  if (has_log) Execute("PRAGMA synchronous = NORMAL");
}

bool Database::LacksSharedMappings() const {
  const ForkSafeSection section;
  const int error = sqlite3_system_errno(db_.get());
  return sqlite3_extended_errcode(db_.get()) == SQLITE_IOERR_SHMMAP &&
         (IsUnsupported(error) || error == ENODEV);
}

}  // namespace msb::base
