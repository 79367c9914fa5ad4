// SPDX-License-Identifier: Apache-2.0
//
// Wraps a connection, a prepared statement and a transaction of SQLite as RAII classes. Failures
// throw DatabaseError.
//
// A forked process never uses a connection of its parent: SQLite remembers which locks a process
// holds, but a forked process does not have its parent's locks. fork() waits for statements and
// transactions in progress (fork.h). When a forked process opens its first database, the inherited
// connections are closed, without writing. If fork() could not wait long enough, opening a database
// throws kIO in the new process.

#ifndef MSB_SRC_BASE_SQLITE_H_
#define MSB_SRC_BASE_SQLITE_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "msb/error.h"
#include "src/base/fork.h"
#include "src/base/sqlite_path.h"

struct sqlite3;
struct sqlite3_stmt;

namespace msb::base {

// Every failure of SQLite is thrown as a DatabaseError. Its message names the database.
class DatabaseError : public Error {
 public:
  enum class Cause {
    kLocked,        // kIO: another program has kept the database locked.
    kInaccessible,  // kIO: it cannot be opened, read or written: permissions, space, I/O error.
    kRefused,       // kIO: the change violates a constraint.
    kDamaged,       // kIO: the file is damaged or not a database.
    kNoTable,       // kUnsupportedOperation: RequireTable found no such table.
    kWrongSchema,   // kInternal or kUnsupportedOperation: a table or column is missing.
  };

  DatabaseError(Cause cause, ErrorKind kind, const std::string& message, int os_error = 0)
      : Error(kind, message, os_error), cause_(cause) {}
  ~DatabaseError() override;

  Cause cause() const noexcept { return cause_; }

 private:
  Cause cause_;
};

// A Database represents a connection to a database. One thread at a time may use it.
class Database {
 public:
  enum class Mode {
    kReadOnly,   // Does not create the shared memory of a write-ahead log, and fails without it.
    kReadWrite,  // The constructor throws if the file can only be read.
    kCreate,     // Like kReadWrite, but creates the file if it is absent, with mode 0666 subject to
                 // the umask. SQLite gives its log files the mode of the database.
    kImmutable,  // Read-only, without locks and without the write-ahead log: never creates a file.
    kMemory,     // An empty database in memory; the path is only used in messages.
  };

  // Opens the database. Each statement waits up to 10 s while another process or connection has the
  // database locked.
  Database(const std::filesystem::path& path, Mode mode);
  // Opens the database like kCreate, bound to ctx, with a journal that the file system supports. A
  // new database gets a write-ahead log if its file system is local (IsLocalFileSystem) or an
  // overlayfs. Where the file system lacks shared mappings (mmap(2), MAP_SHARED), which the log
  // needs, converts the database to a rollback journal and logs a message. Throws kInaccessible if
  // it has a log there, which a program below that mount may be using. A database with a rollback
  // journal keeps it on every file system, because a program on another mount of the home may not
  // see the log.
  static Database OpenJournaled(const std::filesystem::path& path, const Context& ctx);
  // Returns an in-memory copy of the database at path, which is only read. Never creates a file:
  // log files of this process's user could make the database unwritable for its owner. So if the
  // files of the write-ahead log are incomplete, the copy may lack changes that an interrupted
  // program left in the log. Throws kCancelled if ctx ends.
  static Database CopyToMemory(const std::filesystem::path& path, const Context& ctx);

  // Limits how long statements wait: once ctx is done, they throw kCancelled.
  void Bind(const Context& ctx) { context_ = ctx; }

  // Throws kUnsupportedOperation unless there is a table of this name. A view does not count:
  // reading one may never end.
  void RequireTable(std::string_view name) const;

  const std::filesystem::path& path() const { return path_; }
  void Execute(const std::string& sql);
  // Throws the last error of the connection, with the message "cannot ACTION the database PATH:
  // REASON".
  [[noreturn]] void ThrowLastError(std::string_view action) const;

 private:
  friend class Statement;
  friend class Transaction;
  struct Close {
    void operator()(sqlite3* db) const;
  };

  // Runs call, which calls SQLite and returns its result code, and repeats it while the database is
  // locked, up to 10 s and no longer than the Context allows. Pauses outside of SQLite, so that
  // neither a cancellation nor a fork() has to wait for SQLite.
  template <typename Call>
  int WhileLocked(const Call& call) const;
  // Works like OpenJournaled, but returns nullopt if the file system lacks shared mappings.
  static std::optional<Database> TryOpenJournaled(const std::filesystem::path& path,
                                                  const Context& ctx);
  // Gives a new database a write-ahead log if only one host uses its file system. Reads the
  // database.
  void PrepareJournal();
  // Returns true if the last call failed because the file system lacks shared mappings.
  bool LacksSharedMappings() const;
  // Returns true if reading the database would create the files of its write-ahead log.
  bool WouldCreateLog() const;
  [[noreturn]] void ThrowNotWritable() const;
  // Replaces the content of this database with that of source.
  void CopyFrom(const Database& source);

  std::filesystem::path path_;
  SqlitePath opened_path_;  // Must outlive the connection.
  Context context_;
  bool opened_for_writing_ = false;
  mutable bool read_failed_ = false;  // The last statement could not read the file (EIO).
  std::unique_ptr<sqlite3, Close> db_;
};

// A Statement represents a prepared statement. The database must outlive it.
class Statement {
 public:
  Statement(const Database& db, std::string_view sql);

  // Parameters are numbered from 1.
  Statement& Bind(int index, std::string_view text);
  Statement& Bind(int index, std::int64_t value);
  Statement& Bind(int index, const std::optional<std::string>& text);
  Statement& BindNull(int index);

  // Advances to the next row. Returns false after the last row; the statement may then be run
  // again. Throws kCancelled if the database's Context is done, which is checked every 256 rows.
  bool Step();
  // Runs a statement to its end, ignoring any rows.
  void Run();

  // Columns are numbered from 0. A value of another type is converted by the rules of SQLite. A NUL
  // does not end a text.
  std::string Text(int column) const;
  std::optional<std::string> OptionalText(int column) const;
  std::int64_t Integer(int column) const;
  std::optional<std::int64_t> OptionalInteger(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  const Database& db_;
  // Entered from the first row to the end, while the statement holds a lock on the database.
  std::optional<ForkSafeSection> section_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  unsigned rows_ = 0;
};

// A Transaction represents a write transaction, which is rolled back unless it is committed. It
// takes the write lock at once, so that it never fails halfway because of another writer. Within
// another transaction of the same connection it has no effect: the outer transaction commits.
class Transaction {
 public:
  explicit Transaction(Database& db);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();
  void Commit();

 private:
  Database& db_;
  std::optional<ForkSafeSection> section_;
  bool open_ = false;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_SQLITE_H_
