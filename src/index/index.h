// The snapshot index: one table of a SQLite database, shared with the microsandbox runtime. It is a
// cache of the artifacts; every change is one transaction.
//
// For one thread at a time; other processes may use the database meanwhile.

#ifndef MSB_SRC_INDEX_INDEX_H_
#define MSB_SRC_INDEX_INDEX_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "src/base/sqlite.h"
#include "src/index/row.h"
#include "src/index/table.h"

namespace msb::index {

class Index {
 public:
  // Opens the runtime's database. It is never created, nor its journal mode changed.
  static Index OpenRuntime(const std::filesystem::path& path);
  // Opens a database of this library's own and makes it where there is none. The caller sees to it
  // that only one process at a time makes it.
  static Index OpenOwn(const std::filesystem::path& path);
  // Whether an index of this library's own was ever filled from the artifacts there are.
  bool IsBuilt() const;
  void MarkBuilt();

  // From now on waits for other users no longer than ctx allows; then throws kCancelled.
  void Bind(const Context& ctx) { db_.Bind(ctx); }

  const std::filesystem::path& path() const { return db_.path(); }
  Era era() const { return Table(db_).era(); }

  std::optional<Row> FindByDigest(const std::string& digest) const;
  std::optional<Row> FindByPath(const std::string& artifact_path) const;
  // name alone in the earlier eras, and for what is in no group; a member of a group with it.
  std::optional<Row> FindByName(const std::optional<std::string>& group,
                                const std::string& name) const;
  std::optional<Row> FindBySnapshotId(const std::string& group, const std::string& id) const;
  // Newest first.
  std::vector<Row> All() const;
  // Those that name this one as their parent.
  std::vector<Row> ChildrenOf(const Row& row) const;

  // Adds a row in place of those with its digest, its path or its name. In the layered era, where
  // several artifacts may have one digest, only those of them that are gone are replaced.
  void Upsert(const Row& row);
  // Upserts all rows, and drops those of artifacts below dir that are gone, in one transaction.
  // Returns how many are in the index after: of two with one digest or name the later counts.
  std::uint32_t Rebuild(const std::filesystem::path& dir, std::vector<Row> rows);
  // Drops the row of this path, and those of this digest whose artifacts are gone.
  void Erase(const std::string& artifact_path, const std::string& digest);

 private:
  explicit Index(base::Database db) : db_(std::move(db)) {}

  // Sets child_count of the row that children call parent; of all rows if there is no parent.
  void RecountChildren(const Table& table, const std::optional<std::string>& parent);

  base::Database db_;
};

}  // namespace msb::index

#endif  // MSB_SRC_INDEX_INDEX_H_
