#include "src/index/index.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <unordered_set>

#include "src/base/throw.h"

namespace msb::index {
namespace {

using base::Database;
using base::Statement;
using base::Transaction;

std::optional<Row> FirstRow(Statement& statement) {
  if (!statement.Step()) return std::nullopt;
  return Table::ReadRow(statement);
}

// True if it is certain that there is no artifact: a directory that cannot be read may have one.
bool IsGone(const std::string& artifact_path) {
  for (const char* manifest : {"snapshot.json", "manifest.json"}) {
    std::error_code error;
    const auto type =
        std::filesystem::symlink_status(std::filesystem::path(artifact_path) / manifest, error)
            .type();
    if (type != std::filesystem::file_type::not_found) return false;
  }
  return true;
}

// What must be unique: a name, or in the layered era a name in a group. Empty for no name.
std::string NameKey(const Row& row, Era era) {
  if (!row.name) return {};
  if (era != Era::kLayered) return *row.name;
  return row.group_path ? *row.group_path + '\0' + *row.name : std::string();
}

// A table without columns for groups has their members by their full names.
Row FitToEra(Row row, Era era) {
  if (era == Era::kLayered || !row.group_name || !row.name) return row;
  row.name = *row.group_name + ":" + *row.name;
  row.group_name.reset();
  row.group_path.reset();
  return row;
}

bool IsBelow(const std::string& path, const std::filesystem::path& dir) {
  const std::string prefix = (dir / "").native();
  return path.size() > prefix.size() && path.starts_with(prefix);
}

// The rows to insert: of two that exclude each other, the later.
std::vector<const Row*> WithoutConflicts(const std::vector<Row>& rows, Era era) {
  std::vector<const Row*> kept;
  std::unordered_set<std::string> digests;
  std::unordered_set<std::string> names;
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
    const std::string name = NameKey(*row, era);
    if (era != Era::kLayered && digests.contains(row->digest)) continue;
    if (!name.empty() && names.contains(name)) continue;
    digests.insert(row->digest);
    names.insert(name);
    kept.push_back(&*row);
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

// Says which existing rows give way to new ones.
class Replaced {
 public:
  Replaced(const std::vector<const Row*>& rows, Era era) : era_(era) {
    for (const Row* row : rows) {
      digests_.insert(row->digest);
      paths_.insert(row->artifact_path);
      if (std::string name = NameKey(*row, era); !name.empty()) names_.insert(std::move(name));
    }
  }

  bool operator()(const Row& old) const {
    if (paths_.contains(old.artifact_path)) return true;
    if (const std::string name = NameKey(old, era_); !name.empty() && names_.contains(name)) {
      return true;
    }
    return digests_.contains(old.digest) && (era_ != Era::kLayered || IsGone(old.artifact_path));
  }

 private:
  Era era_;
  std::unordered_set<std::string> digests_;
  std::unordered_set<std::string> paths_;
  std::unordered_set<std::string> names_;
};

}  // namespace

Index Index::OpenRuntime(const std::filesystem::path& path) {
  return Index(Database(path, Database::Mode::kReadWrite));
}

Index Index::OpenOwn(const std::filesystem::path& path) {
  Index index(Database(path, Database::Mode::kCreate));
  index.db_.Execute("PRAGMA journal_mode = WAL");
  // A lost transaction loses nothing that Reindex does not find again.
  index.db_.Execute("PRAGMA synchronous = NORMAL");
  if (!index.IsBuilt()) {
    Transaction transaction(index.db_);
    index.db_.Execute(Table::CreationSql());
    transaction.Commit();
  }
  return index;
}

bool Index::IsBuilt() const {
  Statement version(db_, "PRAGMA user_version");
  return version.Step() && version.Integer(0) != 0;
}

void Index::MarkBuilt() { db_.Execute("PRAGMA user_version = 1"); }

std::optional<Row> Index::FindByDigest(const std::string& digest) const {
  Statement statement(db_, Table(db_).SelectSql("WHERE digest = ?1 ORDER BY indexed_at DESC"));
  statement.Bind(1, std::string_view(digest));
  return FirstRow(statement);
}

std::optional<Row> Index::FindByPath(const std::string& artifact_path) const {
  Statement statement(db_, Table(db_).SelectSql("WHERE artifact_path = ?1"));
  statement.Bind(1, std::string_view(artifact_path));
  return FirstRow(statement);
}

std::optional<Row> Index::FindByName(const std::optional<std::string>& group,
                                     const std::string& name) const {
  const Table table(db_);
  if (table.era() != Era::kLayered) {
    Statement statement(db_, table.SelectSql("WHERE name = ?1"));
    statement.Bind(1, std::string_view(group ? *group + ":" + name : name));
    return FirstRow(statement);
  }
  Statement statement(
      db_, table.SelectSql("WHERE name = ?1 AND group_name IS ?2 ORDER BY indexed_at DESC"));
  statement.Bind(1, std::string_view(name)).Bind(2, group);
  return FirstRow(statement);
}

std::optional<Row> Index::FindBySnapshotId(const std::string& group, const std::string& id) const {
  const Table table(db_);
  if (table.era() != Era::kLayered) return std::nullopt;
  Statement statement(
      db_, table.SelectSql("WHERE snapshot_id = ?1 AND group_name = ?2 ORDER BY indexed_at DESC"));
  statement.Bind(1, std::string_view(id)).Bind(2, std::string_view(group));
  return FirstRow(statement);
}

std::vector<Row> Index::All() const {
  std::vector<Row> rows;
  Statement statement(db_, Table(db_).SelectSql("ORDER BY created_at DESC, artifact_path"));
  while (statement.Step()) rows.push_back(Table::ReadRow(statement));
  return rows;
}

std::vector<Row> Index::ChildrenOf(const Row& row) const {
  std::vector<Row> rows;
  Statement statement(
      db_, Table(db_).SelectSql("WHERE parent_digest IN (?1, ?2) ORDER BY created_at, name"));
  statement.Bind(1, std::string_view(row.digest)).Bind(2, row.snapshot_id);
  while (statement.Step()) rows.push_back(Table::ReadRow(statement));
  return rows;
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

void Index::Upsert(const Row& given) {
  Transaction transaction(db_);
  const Table table(db_);
  table.CheckWritable();
  const Row row = FitToEra(given, table.era());
  std::set<std::string> parents;
  std::vector<std::string> replaced;
  const Replaced is_replaced({&row}, table.era());
  Statement conflicting(db_,
                        table.SelectSql("WHERE digest = ?1 OR artifact_path = ?2 OR name = ?3"));
  conflicting.Bind(1, std::string_view(row.digest)).Bind(2, std::string_view(row.artifact_path));
  conflicting.Bind(3, row.name);
  while (conflicting.Step()) {
    const Row old = Table::ReadRow(conflicting);
    if (!is_replaced(old)) continue;
    replaced.push_back(old.artifact_path);
    if (old.parent_digest) parents.insert(*old.parent_digest);
  }
  Statement erase(db_, "DELETE FROM snapshot_index WHERE artifact_path = ?1");
  for (const std::string& path : replaced) erase.Bind(1, std::string_view(path)).Run();
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
  const std::vector<const Row*> fresh = WithoutConflicts(rows, table.era());
  const Replaced is_replaced(fresh, table.era());
  std::vector<std::int64_t> dropped;
  // Compared in memory: a table of the runtime's has no index on the path.
  Statement ids(db_, "SELECT rowid FROM snapshot_index ORDER BY rowid");
  Statement all(db_, table.SelectSql("ORDER BY rowid"));
  while (ids.Step() && all.Step()) {
    const Row old = Table::ReadRow(all);
    if (is_replaced(old) || (IsBelow(old.artifact_path, dir) && IsGone(old.artifact_path))) {
      dropped.push_back(ids.Integer(0));
    }
  }
  Statement erase(db_, "DELETE FROM snapshot_index WHERE rowid = ?1");
  for (const std::int64_t id : dropped) erase.Bind(1, id).Run();
  Statement insert(db_, table.InsertSql());
  for (const Row* row : fresh) {
    table.BindRow(insert, *row);
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
  Statement candidates(db_, table.SelectSql("WHERE artifact_path = ?1 OR digest = ?2"));
  candidates.Bind(1, std::string_view(artifact_path)).Bind(2, std::string_view(digest));
  while (candidates.Step()) {
    Row row = Table::ReadRow(candidates);
    if (row.artifact_path == artifact_path || IsGone(row.artifact_path)) {
      erased.push_back(std::move(row));
    }
  }
  Statement erase(db_, "DELETE FROM snapshot_index WHERE artifact_path = ?1");
  for (const Row& row : erased) erase.Bind(1, std::string_view(row.artifact_path)).Run();
  for (const Row& row : erased) {
    if (row.parent_digest) RecountChildren(table, row.parent_digest);
  }
  transaction.Commit();
}

}  // namespace msb::index
