// SPDX-License-Identifier: Apache-2.0

#include "src/base/sqlite.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "src/base/descriptor.h"
#include "src/base/file.h"
#include "src/base/owner.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr auto kBusyPause = std::chrono::milliseconds(5);
constexpr auto kBusyTimeout = std::chrono::seconds(10);
// A database is copied in steps of this many pages, which have at most 64 KiB each.
constexpr int kPagesPerStep = 128;
constexpr unsigned kRowsBetweenChecks = 256;

// The header of a database has the write version and the read version at this offset in bytes.
constexpr int kVersionsOffset = 18;
constexpr unsigned char kWalVersion = 2;

// Surrounds calls of SQLite that may open files. Others need only a ForkSafeSection, because they
// may lock mutexes of the connection or of the whole process.
struct InSqlite {
  ForkSafeSection section;
  StandardStreamGuard guard;
};

int PrimaryCode(int result) { return result & 0xff; }

bool IsLocked(int result) {
  return PrimaryCode(result) == SQLITE_BUSY || PrimaryCode(result) == SQLITE_LOCKED;
}

// The open connections of this process. After a fork, until CloseInherited is called, they are
// those of its parent.
class Connections {
 public:
  void Add(sqlite3* db) {
    const std::lock_guard lock(mutex_);
    open_.insert(db);
  }

  void Close(sqlite3* db) {
    const std::lock_guard lock(mutex_);
    if (open_.erase(db) == 0) return;
    if (generation_ == ForkGeneration()) {
      sqlite3_close_v2(db);
    } else {
      CloseInherited(db);
    }
  }

  // Closes the connections that were inherited: SQLite would apply what it remembers of them to new
  // connections to the same file.
  void CloseInherited() {
    const std::lock_guard lock(mutex_);
    if (generation_ == ForkGeneration()) return;
    for (sqlite3* db : open_) CloseInherited(db);
    open_.clear();
    // Otherwise both processes continue with the same random numbers.
    sqlite3_randomness(0, nullptr);
    generation_ = ForkGeneration();
  }

 private:
  // No thread of the parent was in a statement or a transaction, so closing rolls nothing back.
  static void CloseInherited(sqlite3* db) {
    if (ForkInterruptedSection()) return;
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    sqlite3_close_v2(db);
  }

  std::mutex mutex_;  // Guards the other members; locked only in a ForkSafeSection.
  std::set<sqlite3*> open_;
  std::uint64_t generation_ = 0;
};

Connections& OpenConnections() {
  static constinit Lazy<Connections> connections;
  return connections.Get();
}

int OpenFlags(Database::Mode mode) {
  switch (mode) {
    case Database::Mode::kReadWrite:
      return SQLITE_OPEN_READWRITE;
    case Database::Mode::kReadOnly:
    case Database::Mode::kImmutable:
      return SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
    case Database::Mode::kMemory:
      return SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MEMORY;
    case Database::Mode::kCreate:
      break;
  }
  return SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
}

SqlitePath PathFor(const std::filesystem::path& path, Database::Mode mode) {
  return mode == Database::Mode::kMemory ? SqlitePath() : SqlitePath(path);
}

// Returns the name to pass to SQLite.
std::string NameFor(const SqlitePath& path, Database::Mode mode) {
  switch (mode) {
    case Database::Mode::kMemory:
      return ":memory:";
    case Database::Mode::kImmutable:
      return path.Uri() + "?immutable=1";
    case Database::Mode::kReadOnly:
      return path.Uri() + "?readonly_shm=1";
    case Database::Mode::kReadWrite:
    case Database::Mode::kCreate:
      break;
  }
  return path.name();
}

// Creates the file of a database, unless something is there. SQLite itself would create it without
// write permission for the group, regardless of the umask. If this fails, SQLite reports why.
void CreateIfAbsent(const std::filesystem::path& path) {
  const UniqueFd dir = TryOpenDirectory(path.parent_path());
  if (!dir) return;
  const UniqueFd fd =
      OpenAt(dir.get(), path.filename().c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
  if (fd) GiveToOwnerOf(fd.get(), dir.get());
}

DatabaseError::Cause CauseOf(int code) {
  switch (code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return DatabaseError::Cause::kLocked;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return DatabaseError::Cause::kDamaged;
    case SQLITE_ERROR:
      return DatabaseError::Cause::kWrongSchema;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
      return DatabaseError::Cause::kRefused;
    default:
      return DatabaseError::Cause::kInaccessible;
  }
}

// Returns the errno of an attempt to write to path; 0 if it would succeed, or if path is absent.
int ErrorOfWriting(const std::filesystem::path& path) {
  errno = 0;
  return MayReadAndWrite(path) || errno == ENOENT ? 0 : errno;
}

// The system error that made SQLite fail, and the file or directory that it concerns. error is 0 if
// it is unknown.
struct SystemError {
  int error = 0;
  std::filesystem::path place;
};

// Finds the cause of a failure to open or write the database at path. reported is the errno from
// SQLite, which belongs to the last file that it looked for.
SystemError FindSystemError(int code, int reported, const std::filesystem::path& path) {
  if (code == SQLITE_FULL) return {ENOSPC, path};
  if (code != SQLITE_READONLY && code != SQLITE_CANTOPEN && code != SQLITE_PERM) {
    return {reported, path};
  }
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    std::filesystem::path file = path.native() + suffix;
    if (const int error = ErrorOfWriting(file); error != 0) return {error, std::move(file)};
  }
  const std::filesystem::path dir = path.parent_path();
  if (const int error = ErrorOfWriting(dir); error != 0) return {error, dir};
  if (code == SQLITE_CANTOPEN && HasNoFreeInodes(dir)) return {ENOSPC, dir};
  std::error_code error;
  // SQLite looks for files that need not exist, so their absence is not the cause.
  const bool is_unknown = reported == ENOENT && std::filesystem::exists(path, error);
  return {is_unknown ? 0 : reported, path};
}

}  // namespace

void Database::Close::operator()(sqlite3* db) const {
  const InSqlite in_sqlite;
  OpenConnections().Close(db);
}

void Statement::Finalize::operator()(sqlite3_stmt* statement) const {
  const InSqlite in_sqlite;
  sqlite3_finalize(statement);
}

DatabaseError::~DatabaseError() = default;

Database::Database(const std::filesystem::path& path, Mode mode)
    : path_(path), opened_path_(PathFor(path, mode)), context_(Context::Background()) {
  const InSqlite in_sqlite;
  opened_for_writing_ = mode != Mode::kReadOnly && mode != Mode::kImmutable;
  if (ForkInterruptedSection()) {
    Throw(ErrorKind::kIO,
          "cannot open the database {}: this process was forked in the middle of an operation of "
          "this "
          "library, so it cannot use SQLite; execute a program after fork(), or fork between calls",
          path.native());
  }
  OpenConnections().CloseInherited();
  if (mode == Mode::kCreate) CreateIfAbsent(path);
  sqlite3* db = nullptr;
  const int result = sqlite3_open_v2(NameFor(opened_path_, mode).c_str(), &db,
                                     OpenFlags(mode) | SQLITE_OPEN_FULLMUTEX, opened_path_.vfs());
  if (db == nullptr) {
    Throw(ErrorKind::kIO, "cannot open the database {}: out of memory; free memory and try again",
          path.native());
  }
  OpenConnections().Add(db);
  db_.reset(db);
  if (result != SQLITE_OK) ThrowLastError("open");
  // Checked before anything is read, because reading may create log files, which belong to this
  // user.
  if (opened_for_writing_ && sqlite3_db_readonly(db, "main") == 1) ThrowNotWritable();
  sqlite3_extended_result_codes(db, 1);
  // Another program may have written the schema, so do not trust it: its views and triggers may not
  // call functions with side effects, and SQL may not corrupt the file.
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
}

Database Database::CopyToMemory(const std::filesystem::path& path, const Context& ctx) {
  Database copy(path, Mode::kMemory);
  try {
    Database source(path, Mode::kReadOnly);
    source.Bind(ctx);
    if (!source.WouldCreateLog()) {
      copy.CopyFrom(source);
      return copy;
    }
  } catch (const DatabaseError& e) {
    // SQLite cannot use the log without writing to it.
    if (e.cause() != DatabaseError::Cause::kInaccessible) throw;
  }
  Database source(path, Mode::kImmutable);
  source.Bind(ctx);
  copy.CopyFrom(source);
  return copy;
}

bool Database::WouldCreateLog() const {
  const InSqlite in_sqlite;
  // Read through the descriptor of SQLite: closing another one would release the locks that SQLite
  // has on the file in this process.
  sqlite3_file* file = nullptr;
  std::array<unsigned char, 2> versions{};
  if (sqlite3_file_control(db_.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK ||
      file == nullptr || file->pMethods == nullptr ||
      file->pMethods->xRead(file, versions.data(), versions.size(), kVersionsOffset) != SQLITE_OK) {
    return false;
  }
  if (versions[0] != kWalVersion && versions[1] != kWalVersion) return false;
  std::error_code error;
  return !std::filesystem::exists(path_.native() + "-wal", error) ||
         !std::filesystem::exists(path_.native() + "-shm", error);
}

void Database::ThrowNotWritable() const {
  // If the permissions allow writing, the file has the attribute "append only".
  const int error = MayReadAndWrite(path_) ? EPERM : errno;
  throw DatabaseError(
      DatabaseError::Cause::kInaccessible, ErrorKind::kIO,
      fmt::format("cannot write the database {}: {}; {}", path_.native(),
                  std::generic_category().message(error), NextStep(error, path_.native())),
      error);
}

void Database::CopyFrom(const Database& source) {
  // Locks the source for reading until the copy is complete. If another program changed the source
  // between two steps, SQLite would copy everything again.
  Statement version(source, "PRAGMA schema_version");
  version.Step();
  const auto copy = [&] {
    sqlite3_backup* backup = sqlite3_backup_init(db_.get(), "main", source.db_.get(), "main");
    if (backup == nullptr) return sqlite3_errcode(db_.get());
    int result = SQLITE_OK;
    while (result == SQLITE_OK && !source.context_.Done()) {
      result = sqlite3_backup_step(backup, kPagesPerStep);
    }
    sqlite3_backup_finish(backup);
    return result;
  };
  const int result = source.WhileLocked(copy);
  if (result == SQLITE_DONE) return;
  if (result == SQLITE_OK) source.context_.Check();
  // This connection, the destination of the copy, has the error too.
  read_failed_ = source.read_failed_;
  ThrowLastError("read");
}

template <typename Call>
int Database::WhileLocked(const Call& call) const {
  const auto give_up = std::chrono::steady_clock::now() + kBusyTimeout;
  for (;;) {
    {
      const InSqlite in_sqlite;
      errno = 0;
      const int result = call();
      // SQLite reports a failed read as damage.
      read_failed_ = PrimaryCode(result) == SQLITE_CORRUPT && errno == EIO;
      if (!IsLocked(result)) return result;
      if (context_.Done() || std::chrono::steady_clock::now() >= give_up) return result;
    }
    std::this_thread::sleep_for(kBusyPause);
  }
}

void Database::Execute(const std::string& sql) {
  const int result =
      WhileLocked([&] { return sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr); });
  if (result != SQLITE_OK) ThrowLastError("write");
}

void Database::ThrowLastError(std::string_view action) const {
  using Cause = DatabaseError::Cause;
  const ForkSafeSection section;
  const int code = PrimaryCode(sqlite3_errcode(db_.get()));
  Cause cause = read_failed_ ? Cause::kInaccessible : CauseOf(code);
  std::string reason = sqlite3_errmsg(db_.get());
  // The file was writable when it was opened, so its header is the reason.
  if (code == SQLITE_READONLY && opened_for_writing_ &&
      sqlite3_db_readonly(db_.get(), "main") == 1) {
    cause = Cause::kDamaged;
    reason = "its header has an unknown write version";
  }
  SystemError system;
  if (cause == Cause::kLocked) {
    context_.Check();
    reason =
        fmt::format("another program has kept it locked for {} s; try again, or stop that program",
                    kBusyTimeout.count());
  } else if (cause == Cause::kDamaged) {
    reason += "; it is damaged: restore it from a backup, or move it away";
  } else if (cause == Cause::kInaccessible) {
    system = read_failed_ ? SystemError{EIO, path_}
                          : FindSystemError(code, sqlite3_system_errno(db_.get()), path_);
    if (system.error != 0) {
      reason =
          fmt::format("{}{} ({}); {}", system.place == path_ ? "" : system.place.native() + ": ",
                      std::generic_category().message(system.error), reason,
                      NextStep(system.error, system.place.native()));
    } else {
      reason += "; try again";
    }
  } else {
    reason += "; use the release that created it";
  }
  throw DatabaseError(cause, cause == Cause::kWrongSchema ? ErrorKind::kInternal : ErrorKind::kIO,
                      fmt::format("cannot {} the database {}: {}", action, path_.native(), reason),
                      system.error);
}

void Database::RequireTable(std::string_view name) const {
  Statement table(*this, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1");
  if (!table.Bind(1, name).Step()) {
    throw DatabaseError(DatabaseError::Cause::kNoTable, ErrorKind::kUnsupportedOperation,
                        fmt::format("the database {} lacks the table '{}'; open it once with the "
                                    "program that created it, or restore it from a copy",
                                    path_.native(), name));
  }
}

Statement::Statement(const Database& db, std::string_view sql) : db_(db) {
  sqlite3_stmt* statement = nullptr;
  const int result = db.WhileLocked([&] {
    return sqlite3_prepare_v2(db.db_.get(), sql.data(), static_cast<int>(sql.size()), &statement,
                              nullptr);
  });
  if (result != SQLITE_OK) db.ThrowLastError("query");
  statement_.reset(statement);
}

// Binding allocates memory, for which SQLite locks a mutex of the whole process.
Statement& Statement::Bind(int index, std::string_view text) {
  const ForkSafeSection section;
  if (sqlite3_bind_text64(statement_.get(), index, text.data(), text.size(), SQLITE_TRANSIENT,
                          SQLITE_UTF8) != SQLITE_OK) {
    db_.ThrowLastError("query");
  }
  return *this;
}

Statement& Statement::Bind(int index, std::int64_t value) {
  const ForkSafeSection section;
  if (sqlite3_bind_int64(statement_.get(), index, value) != SQLITE_OK) db_.ThrowLastError("query");
  return *this;
}

Statement& Statement::Bind(int index, const std::optional<std::string>& text) {
  return text ? Bind(index, std::string_view(*text)) : BindNull(index);
}

Statement& Statement::BindNull(int index) {
  const ForkSafeSection section;
  if (sqlite3_bind_null(statement_.get(), index) != SQLITE_OK) db_.ThrowLastError("query");
  return *this;
}

bool Statement::Step() {
  if (++rows_ % kRowsBetweenChecks == 0) db_.context_.Check();
  const int result = db_.WhileLocked([&] {
    const int code = sqlite3_step(statement_.get());
    if (code == SQLITE_ROW) {
      if (!section_) section_.emplace();
    } else if (IsLocked(code) && section_) {
      return SQLITE_ABORT;  // Starting again would return rows twice.
    } else if (code == SQLITE_DONE || IsLocked(code)) {
      sqlite3_reset(statement_.get());
    }
    return code;
  });
  if (result == SQLITE_ROW) return true;
  if (result != SQLITE_DONE) db_.ThrowLastError("query");
  section_.reset();
  return false;
}

void Statement::Run() {
  while (Step()) {
  }
}

std::string Statement::Text(int column) const {
  const auto* text = sqlite3_column_text(statement_.get(), column);
  if (text == nullptr) return {};
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column));
  return std::string(reinterpret_cast<const char*>(text), size);
}

std::optional<std::string> Statement::OptionalText(int column) const {
  if (sqlite3_column_type(statement_.get(), column) == SQLITE_NULL) return std::nullopt;
  return Text(column);
}

std::int64_t Statement::Integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

std::optional<std::int64_t> Statement::OptionalInteger(int column) const {
  if (sqlite3_column_type(statement_.get(), column) == SQLITE_NULL) return std::nullopt;
  return Integer(column);
}

Transaction::Transaction(Database& db) : db_(db) {
  if (sqlite3_get_autocommit(db_.db_.get()) == 0) return;
  const int result = db_.WhileLocked([&] {
    const int code = sqlite3_exec(db_.db_.get(), "BEGIN IMMEDIATE", nullptr, nullptr, nullptr);
    if (code == SQLITE_OK) section_.emplace();
    return code;
  });
  if (result != SQLITE_OK) db_.ThrowLastError("write");
  open_ = true;
}

Transaction::~Transaction() {
  if (!open_) return;
  try {
    db_.Execute("ROLLBACK");
  } catch (...) {
    // SQLite itself rolls back when the connection is closed.
  }
}

void Transaction::Commit() {
  if (!open_) return;
  db_.Execute("COMMIT");
  open_ = false;
  section_.reset();
}

}  // namespace msb::base
