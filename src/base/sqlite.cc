#include "src/base/sqlite.h"

#include <sqlite3.h>

#include <chrono>
#include <thread>

#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr auto kBusyPause = std::chrono::milliseconds(5);
constexpr int kMaxBusyPauses = 2000;

// Called by SQLite while another process has a lock; 0 gives up.
int WaitWhileBusy(void* context, int pauses_so_far) {
  if (pauses_so_far >= kMaxBusyPauses || static_cast<const Context*>(context)->Done()) return 0;
  std::this_thread::sleep_for(kBusyPause);
  return 1;
}

int OpenFlags(Database::Mode mode) {
  switch (mode) {
    case Database::Mode::kReadOnly:
      return SQLITE_OPEN_READONLY;
    case Database::Mode::kReadWrite:
      return SQLITE_OPEN_READWRITE;
    case Database::Mode::kCreate:
      break;
  }
  return SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
}

}  // namespace

void Database::Close::operator()(sqlite3* db) const { sqlite3_close_v2(db); }
void Statement::Finalize::operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }

Database::Database(const std::filesystem::path& path, Mode mode)
    : path_(path), context_(std::make_unique<Context>(Context::Background())) {
  sqlite3* db = nullptr;
  const int result =
      sqlite3_open_v2(path.c_str(), &db, OpenFlags(mode) | SQLITE_OPEN_FULLMUTEX, nullptr);
  db_.reset(db);
  if (!db_) Throw(ErrorKind::kIO, "cannot open {}: out of memory", path.native());
  if (result != SQLITE_OK) ThrowLastError("open");
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_handler(db, WaitWhileBusy, context_.get());
  // The schema is somebody else's: let it run no functions of ours and no more of itself than
  // plain tables need.
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
}

void Database::Execute(const std::string& sql) {
  if (sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    ThrowLastError("write");
  }
}

void Database::ThrowLastError(std::string_view action) const {
  const int code = sqlite3_errcode(db_.get()) & 0xff;
  if (code == SQLITE_BUSY) context_->Check();
  const bool damaged = code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_ERROR;
  Throw(damaged ? ErrorKind::kInternal : ErrorKind::kIO, "cannot {} the database {}: {}", action,
        path_.native(), sqlite3_errmsg(db_.get()));
}

void Database::RequireTable(std::string_view name) const {
  Statement table(*this, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1");
  if (!table.Bind(1, name).Step()) {
    Throw(ErrorKind::kUnsupportedOperation, "{} has no table {}", path_.native(), name);
  }
}

Statement::Statement(const Database& db, std::string_view sql) : db_(db) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db.db_.get(), sql.data(), static_cast<int>(sql.size()), &statement,
                         nullptr) != SQLITE_OK) {
    db.ThrowLastError("query");
  }
  statement_.reset(statement);
}

Statement& Statement::Bind(int index, std::string_view text) {
  if (sqlite3_bind_text64(statement_.get(), index, text.data(), text.size(), SQLITE_TRANSIENT,
                          SQLITE_UTF8) != SQLITE_OK) {
    db_.ThrowLastError("query");
  }
  return *this;
}

Statement& Statement::Bind(int index, std::int64_t value) {
  if (sqlite3_bind_int64(statement_.get(), index, value) != SQLITE_OK) db_.ThrowLastError("query");
  return *this;
}

Statement& Statement::Bind(int index, const std::optional<std::string>& text) {
  return text ? Bind(index, std::string_view(*text)) : BindNull(index);
}

Statement& Statement::BindNull(int index) {
  if (sqlite3_bind_null(statement_.get(), index) != SQLITE_OK) db_.ThrowLastError("query");
  return *this;
}

bool Statement::Step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result != SQLITE_DONE) db_.ThrowLastError("query");
  sqlite3_reset(statement_.get());
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

Transaction::Transaction(Database& db) : db_(db) { db_.Execute("BEGIN IMMEDIATE"); }

Transaction::~Transaction() {
  if (!open_) return;
  try {
    db_.Execute("ROLLBACK");
  } catch (const Error&) {
    // SQLite rolls back itself when the connection closes.
  }
}

void Transaction::Commit() {
  db_.Execute("COMMIT");
  open_ = false;
}

}  // namespace msb::base
