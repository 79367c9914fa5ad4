// SQLite by RAII: a connection, a prepared statement, a transaction. Failures throw kIO with
// SQLite's message; a database that is not one throws kInternal.

#ifndef MSB_SRC_BASE_SQLITE_H_
#define MSB_SRC_BASE_SQLITE_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "msb/context.h"

struct sqlite3;
struct sqlite3_stmt;

namespace msb::base {

// For one thread at a time.
class Database {
 public:
  enum class Mode { kReadOnly, kReadWrite, kCreate };

  // Waits up to 10 s for a database that another process has locked, at each statement.
  Database(const std::filesystem::path& path, Mode mode);

  // From now on waits no longer than ctx allows; then statements throw kCancelled.
  void Bind(const Context& ctx) { *context_ = ctx; }

  // Throws kUnsupportedOperation unless there is a table of this name. A view of it will not do:
  // one may never end.
  void RequireTable(std::string_view name) const;

  const std::filesystem::path& path() const { return path_; }
  void Execute(const std::string& sql);
  [[noreturn]] void ThrowLastError(std::string_view action) const;

 private:
  friend class Statement;
  struct Close {
    void operator()(sqlite3* db) const;
  };
  std::filesystem::path path_;
  std::unique_ptr<Context> context_;  // Where SQLite's busy handler finds it.
  std::unique_ptr<sqlite3, Close> db_;
};

class Statement {
 public:
  Statement(const Database& db, std::string_view sql);

  // Parameters are numbered from 1.
  Statement& Bind(int index, std::string_view text);
  Statement& Bind(int index, std::int64_t value);
  Statement& Bind(int index, const std::optional<std::string>& text);
  Statement& BindNull(int index);

  // Advances to the next row; false at the end, and then the statement may be run again.
  bool Step();
  // Runs a statement that returns no rows.
  void Run();

  // Columns are numbered from 0. A value of another type is converted as SQLite does it; an
  // embedded NUL ends no text.
  std::string Text(int column) const;
  std::optional<std::string> OptionalText(int column) const;
  std::int64_t Integer(int column) const;
  std::optional<std::int64_t> OptionalInteger(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  const Database& db_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

// Rolls back unless committed. Takes the write lock at once, so that it never fails half way for
// another writer.
class Transaction {
 public:
  explicit Transaction(Database& db);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();
  void Commit();

 private:
  Database& db_;
  bool open_ = true;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_SQLITE_H_
