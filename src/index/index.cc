// SPDX-License-Identifier: Apache-2.0

#include "src/index/index.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <unordered_set>

#include "msb/error.h"
#include "src/base/file.h"
#include "src/base/text.h"

namespace msb::index {
namespace {

using base::Database;
using base::Statement;
using base::Transaction;

// The user_version of a database of this library's own that was filled from the artifacts. Version
// 1 had absolute paths, and one row for each digest.
constexpr std::int64_t kBuiltVersion = 2;

// Returns true if there is certainly no artifact: a directory that cannot be read, and a volume
// that is not mounted, may have one.
bool IsGone(const std::string& artifact_path) {
  std::error_code failure;
  // An artifact is a directory. Like Open and Reindex, does not follow a link in its place.
  if (std::filesystem::is_symlink(artifact_path, failure)) return true;
  for (const char* manifest : {"snapshot.json", "manifest.json"}) {
    std::error_code error;
    const auto type =
        std::filesystem::symlink_status(std::filesystem::path(artifact_path) / manifest, error)
            .type();
    if (type != std::filesystem::file_type::not_found) return false;
  }
  try {
    base::CheckDirectoryUnlessAbsent(std::filesystem::path(artifact_path).parent_path());
  } catch (const Error&) {
    return false;
  }
  return true;
}

// Returns the key that must be unique: the name or, in the layered era, the name in its group.
// Returns an empty string if the row has no such key.
std::string NameKey(const Row& row, const Table& table) {
  if (!row.name || table.IsOwn()) return {};
  if (table.era() != Era::kLayered) return *row.name;
  return row.group_path ? *row.group_path + '\0' + *row.name : std::string();
}

// Returns the row as a table of this era stores it. A table without columns for groups stores their
// members under their full names.
Row FitToEra(Row row, Era era) {
  if (era == Era::kLayered || !row.group_name || !row.name) return row;
  row.name = *row.group_name + ":" + *row.name;
  row.group_name.reset();
  row.group_path.reset();
  return row;
}

// Returns the home that a database of this library's own belongs to.
std::filesystem::path HomeOf(const std::filesystem::path& database) {
  return database.parent_path().parent_path();
}

// Returns the rows to insert: of two that exclude each other, the later one.
std::vector<const Row*> WithoutConflicts(const std::vector<Row>& rows, const Table& table) {
  std::vector<const Row*> kept;
  std::unordered_set<std::string> digests;
  std::unordered_set<std::string> names;
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
    const std::string name = NameKey(*row, table);
    if (table.HasUniqueDigests() && digests.contains(row->digest)) continue;
    if (!name.empty() && names.contains(name)) continue;
    digests.insert(row->digest);
    names.insert(name);
    kept.push_back(&*row);
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

// Decides which existing rows are replaced by new ones.
class Replaced {
 public:
  Replaced(const std::vector<const Row*>& rows, const Table& table) : table_(table) {
    for (const Row* row : rows) {
      digests_.insert(row->digest);
      paths_.insert(row->artifact_path);
      if (std::string name = NameKey(*row, table); !name.empty()) names_.insert(std::move(name));
    }
  }

  bool operator()(const Row& old) const {
    if (paths_.contains(old.artifact_path)) return true;
    if (const std::string name = NameKey(old, table_); !name.empty() && names_.contains(name)) {
      return true;
    }
    return digests_.contains(old.digest) &&
           (table_.HasUniqueDigests() || IsGone(old.artifact_path));
  }

 private:
  const Table& table_;
  std::unordered_set<std::string> digests_;
  std::unordered_set<std::string> paths_;
  std::unordered_set<std::string> names_;
};

}  // namespace

Index Index::OpenRuntime(const std::filesystem::path& path, const Context& ctx) {
  Index index(Database(path, Database::Mode::kReadWrite));
  index.Bind(ctx);
  return index;
}

Index Index::OpenOwn(const std::filesystem::path& path, const Context& ctx) {
  Index index(Database::OpenJournaled(path, ctx), HomeOf(path));
  index.PrepareOwn();
  return index;
}

Index Index::InMemory(const std::filesystem::path& path) {
  Index index(Database(path, Database::Mode::kMemory), HomeOf(path));
  index.PrepareOwn();
  return index;
}

Index Index::CopyOfRuntime(const std::filesystem::path& path, const Context& ctx) {
  Index index(Database::CopyToMemory(path, ctx));
  index.Bind(ctx);
  index.era();  // Throws if the table is absent or its schema is unknown.
  return index;
}

Index Index::CopyOfOwn(const std::filesystem::path& path, const Context& ctx) {
  Index index(Database::CopyToMemory(path, ctx), HomeOf(path));
  index.Bind(ctx);
  index.PrepareOwn();
  return index;
}

void Index::PrepareOwn() {
  std::int64_t version = 0;
  {
    Statement statement(db_, "PRAGMA user_version");
    if (statement.Step()) version = statement.Integer(0);
  }
  if (version == 0) {
    Transaction transaction(db_);
    db_.Execute(Table::CreationSql());
    transaction.Commit();
  }
  const Table table(db_);
  table.CheckWritable();
  if (table.IsOwn() && (version == 0 || version == kBuiltVersion)) {
    if (!table.HasChecksums()) AddChecksums();
    return;
  }
  throw base::DatabaseError(
      base::DatabaseError::Cause::kWrongSchema, ErrorKind::kUnsupportedOperation,
      fmt::format("{} was created by another version of this library", path().native()));
}

void Index::AddChecksums() {
  Transaction transaction(db_);
  // Where locks (flock) are missing, another process may have added them meanwhile.
  if (Table(db_).HasChecksums()) return;
  db_.Execute(Table::AddChecksumsSql());
  db_.Execute("PRAGMA user_version = 0");  // Filling it again writes the checksums.
  transaction.Commit();
}

bool Index::IsBuilt() const {
  Statement version(db_, "PRAGMA user_version");
  return version.Step() && version.Integer(0) == kBuiltVersion;
}

void Index::MarkBuilt() { db_.Execute(fmt::format("PRAGMA user_version = {}", kBuiltVersion)); }

std::string Index::Stored(const std::string& path) const {
  if (home_.empty() || !base::IsBeneath(path, home_)) return path;
  return path.substr((home_ / "").native().size());
}

std::string Index::Loaded(const std::string& path) const {
  if (home_.empty() || path.starts_with('/')) return path;
  return (home_ / path).lexically_normal().native();
}

void Index::ThrowDamaged(std::string_view reason) const {
  throw base::DatabaseError(base::DatabaseError::Cause::kDamaged, ErrorKind::kIO,
                            fmt::format("the database {} is damaged: {}", path().native(), reason));
}

void Index::CheckIntact() const {
  if (home_.empty() || was_checked_) return;
  Statement check(db_, "PRAGMA integrity_check(1)");
  const std::string result = check.Step() ? check.Text(0) : "ok";
  if (result != "ok") ThrowDamaged(result);
  was_checked_ = true;
}

Row Index::Read(const Table& table, const Statement& statement) const {
  Row row = Table::ReadRow(statement);
  if (!table.IsIntact(statement, row)) {
    ThrowDamaged(fmt::format("the row of '{}' does not have the content that was written",
                             base::Quoted(row.artifact_path)));
  }
  row.artifact_path = Loaded(row.artifact_path);
  return row;
}

std::vector<Row> Index::ReadAll(const Table& table, Statement& statement) const {
  std::vector<Row> rows;
  while (statement.Step()) rows.push_back(Read(table, statement));
  return rows;
}

std::optional<Row> Index::ReadFirst(const Table& table, Statement& statement) const {
  if (!statement.Step()) return std::nullopt;
  return Read(table, statement);
}

bool Index::ReadsDescriptors() const {
  const Era era = this->era();
  if (era != Era::kDescriptor) return era == Era::kLayered;
  // Releases 0.6.7 and 0.6.8 have descriptors too, but require other fields in them. Their
  // databases lack the table cpu_allocation, which 0.6.9 and later have (measured).
  return base::Statement(db_, "SELECT 1 FROM sqlite_master WHERE name = 'cpu_allocation'").Step();
}

std::vector<Row> Index::WithDigest(const std::string& digest) const {
  const Table table(db_);
  Statement statement(db_, table.SelectSql("WHERE digest = ?1 ORDER BY indexed_at DESC"));
  statement.Bind(1, std::string_view(digest));
  return ReadAll(table, statement);
}

std::vector<Row> Index::WithName(const std::optional<std::string>& group,
                                 const std::string& name) const {
  const Table table(db_);
  if (table.era() != Era::kLayered) {
    Statement statement(db_, table.SelectSql("WHERE name = ?1 ORDER BY indexed_at DESC"));
    statement.Bind(1, std::string_view(group ? *group + ":" + name : name));
    return ReadAll(table, statement);
  }
  Statement statement(
      db_, table.SelectSql("WHERE name = ?1 AND group_name IS ?2 ORDER BY indexed_at DESC"));
  statement.Bind(1, std::string_view(name)).Bind(2, group);
  return ReadAll(table, statement);
}

std::vector<Row> Index::WithFileName(const std::string& name) const {
  const Table table(db_);
  Statement statement(db_, table.SelectSql("WHERE substr(artifact_path, -length(?1)) = ?1 "
                                           "ORDER BY indexed_at DESC"));
  statement.Bind(1, std::string_view("/" + name));
  return ReadAll(table, statement);
}

std::optional<Row> Index::FindByPath(const std::string& artifact_path) const {
  const Table table(db_);
  Statement statement(db_, table.SelectSql("WHERE artifact_path IN (?1, ?2)"));
  statement.Bind(1, std::string_view(Stored(artifact_path)));
  statement.Bind(2, std::string_view(artifact_path));
  return ReadFirst(table, statement);
}

std::optional<Row> Index::FindBySnapshotId(const std::optional<std::string>& group,
                                           const std::string& id) const {
  const Table table(db_);
  if (table.era() != Era::kLayered) {
    // The directory of a member is named after its snapshot id.
    if (group || !id.starts_with("snap_")) return std::nullopt;
    std::vector<Row> rows = WithFileName(id);
    if (rows.empty()) return std::nullopt;
    return std::move(rows.front());
  }
  Statement statement(db_, table.SelectSql("WHERE snapshot_id = ?1 AND (?2 IS NULL OR "
                                           "group_name = ?2) ORDER BY indexed_at DESC"));
  statement.Bind(1, std::string_view(id)).Bind(2, group);
  return ReadFirst(table, statement);
}

std::vector<Row> Index::All() const {
  const Table table(db_);
  Statement statement(db_, table.SelectSql("ORDER BY created_at DESC, artifact_path"));
  std::vector<Row> rows = ReadAll(table, statement);
  // SQLite counts the entries of an index of the table, so the numbers differ if that index is
  // damaged, or if another process has changed the table meanwhile.
  Statement count(db_, "SELECT count(*) FROM snapshot_index");
  const bool differs = count.Step() && count.Integer(0) != static_cast<std::int64_t>(rows.size());
  count.Run();
  if (differs) CheckIntact();
  return rows;
}

std::vector<Row> Index::ChildrenOf(const Row& row) const {
  const Table table(db_);
  Statement statement(db_,
                      table.SelectSql("WHERE parent_digest IN (?1, ?2) ORDER BY created_at, name"));
  statement.Bind(1, std::string_view(row.digest)).Bind(2, row.snapshot_id);
  return ReadAll(table, statement);
}

void Index::RecountChildren(const Table& table, const std::optional<std::string>& parent) {
  const bool layered = table.era() == Era::kLayered;
  std::string sql =
      "UPDATE snapshot_index SET child_count = (SELECT COUNT(*) FROM snapshot_index AS child "
      "WHERE child.parent_digest IN (snapshot_index.digest";
  sql += layered ? ", snapshot_index.snapshot_id))" : "))";
  if (parent) sql += layered ? " WHERE digest = ?1 OR snapshot_id = ?1" : " WHERE digest = ?1";
  Statement statement(db_, sql);
  if (parent) statement.Bind(1, parent);
  statement.Run();
}

void Index::ErasePath(const std::string& artifact_path) {
  Statement erase(db_, "DELETE FROM snapshot_index WHERE artifact_path IN (?1, ?2)");
  erase.Bind(1, std::string_view(artifact_path));
  erase.Bind(2, std::string_view(Stored(artifact_path)));
  erase.Run();
}

void Index::Upsert(const Row& given) {
  Transaction transaction(db_);
  const Table table(db_);
  table.CheckWritable();
  Row row = FitToEra(given, table.era());
  std::set<std::string> parents;
  std::vector<std::string> replaced;
  const Replaced is_replaced({&row}, table);
  Statement conflicting(db_, table.SelectSql("WHERE digest = ?1 OR artifact_path IN (?2, ?4) OR "
                                             "name = ?3"));
  conflicting.Bind(1, std::string_view(row.digest)).Bind(2, std::string_view(row.artifact_path));
  conflicting.Bind(3, row.name).Bind(4, std::string_view(Stored(row.artifact_path)));
  while (conflicting.Step()) {
    const Row old = Read(table, conflicting);
    if (!is_replaced(old)) continue;
    replaced.push_back(old.artifact_path);
    if (old.parent_digest) parents.insert(*old.parent_digest);
  }
  for (const std::string& path : replaced) ErasePath(path);
  row.artifact_path = Stored(row.artifact_path);
  Statement insert(db_, table.InsertSql());
  table.BindRow(insert, row);
  insert.Run();
  parents.insert(row.digest);
  if (row.parent_digest) parents.insert(*row.parent_digest);
  for (const std::string& parent : parents) RecountChildren(table, parent);
  transaction.Commit();
}

std::uint32_t Index::Rebuild(const std::filesystem::path& dir, std::vector<Row> rows) {
  Transaction transaction(db_);
  const Table table(db_);
  table.CheckWritable();
  for (Row& row : rows) row = FitToEra(std::move(row), table.era());
  const std::vector<const Row*> fresh = WithoutConflicts(rows, table);
  const Replaced is_replaced(fresh, table);
  std::vector<std::int64_t> dropped;
  // Compared in memory, since a table of the runtime has no index on the path.
  Statement ids(db_, "SELECT rowid FROM snapshot_index ORDER BY rowid");
  Statement all(db_, table.SelectSql("ORDER BY rowid"));
  while (ids.Step() && all.Step()) {
    const Row old = Read(table, all);
    if (is_replaced(old) ||
        (base::IsBeneath(old.artifact_path, dir) && IsGone(old.artifact_path))) {
      dropped.push_back(ids.Integer(0));
    }
  }
  Statement erase(db_, "DELETE FROM snapshot_index WHERE rowid = ?1");
  for (const std::int64_t id : dropped) erase.Bind(1, id).Run();
  Statement insert(db_, table.InsertSql());
  for (const Row* row : fresh) {
    Row stored = *row;
    stored.artifact_path = Stored(row->artifact_path);
    table.BindRow(insert, stored);
    insert.Run();
  }
  RecountChildren(table, std::nullopt);
  transaction.Commit();
  return static_cast<std::uint32_t>(fresh.size());
}

void Index::Erase(const std::string& artifact_path, const std::string& digest) {
  Transaction transaction(db_);
  const Table table(db_);
  std::vector<Row> erased;
  Statement candidates(db_, table.SelectSql("WHERE artifact_path IN (?1, ?3) OR digest = ?2"));
  candidates.Bind(1, std::string_view(artifact_path)).Bind(2, std::string_view(digest));
  candidates.Bind(3, std::string_view(Stored(artifact_path)));
  while (candidates.Step()) {
    Row row = Read(table, candidates);
    if (row.artifact_path == artifact_path || IsGone(row.artifact_path)) {
      erased.push_back(std::move(row));
    }
  }
  for (const Row& row : erased) ErasePath(row.artifact_path);
  for (const Row& row : erased) {
    if (row.parent_digest) RecountChildren(table, row.parent_digest);
  }
  transaction.Commit();
}

}  // namespace msb::index
