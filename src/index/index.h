// SPDX-License-Identifier: Apache-2.0
//
// An Index represents the snapshot index: one table of a SQLite database, shared with the
// microsandbox runtime. It is a cache of the artifacts. Every change is one transaction.
//
// A database of this library's own, HOME/db/snapshots.db, stores the paths beneath the home
// relative to it, so that they stay valid when the home is moved or copied. The functions below
// always take and return absolute paths.
//
// Must be used by one thread at a time. Other processes may use the database at the same time.

#ifndef MSB_SRC_INDEX_INDEX_H_
#define MSB_SRC_INDEX_INDEX_H_

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/sqlite.h"
#include "src/index/row.h"
#include "src/index/table.h"

namespace msb::index {

class Index {
 public:
  // Opens the runtime's database, bound to ctx. Never creates it or changes its journal mode.
  static Index OpenRuntime(const std::filesystem::path& path,
                           const Context& ctx = Context::Background());
  // Opens a database of this library's own, bound to ctx, and creates it if it is absent. The
  // caller must make sure that only one process at a time creates it.
  // Throws DatabaseError with the cause kWrongSchema if the database was created by another version
  // of this library.
  static Index OpenOwn(const std::filesystem::path& path,
                       const Context& ctx = Context::Background());
  // Creates an empty index in memory, with the table of a database of this library's own. path is
  // the path of the database that cannot be used.
  static Index InMemory(const std::filesystem::path& path);
  // Copies a database of the runtime, or of this library's own, into memory. Only reads the file.
  static Index CopyOfRuntime(const std::filesystem::path& path, const Context& ctx);
  static Index CopyOfOwn(const std::filesystem::path& path, const Context& ctx);

  // Returns whether a database of this library's own has ever been filled from the artifacts.
  bool IsBuilt() const;
  void MarkBuilt();

  // Limits how long further calls wait for other users of the database: once ctx is done, they
  // throw kCancelled.
  void Bind(const Context& ctx) { db_.Bind(ctx); }

  // Takes the write lock and begins a transaction. Changes made by the functions below become part
  // of that transaction.
  base::Transaction Begin() { return base::Transaction(db_); }

  const std::filesystem::path& path() const { return db_.path(); }
  Era era() const { return Table(db_).era(); }
  // Returns true if the release that the database belongs to reads the descriptors that this
  // library writes: 0.6.9 or later.
  bool ReadsDescriptors() const;
  bool HasUniqueDigests() const { return Table(db_).HasUniqueDigests(); }
  // Returns true if paths beneath the home are stored relative to it.
  bool HasRelativePaths() const { return !home_.empty(); }
  // Returns false if the table has a column that needs a value and that this library does not know.
  bool IsWritable() const { return Table(db_).IsWritable(); }

  // Compares the table of a database of this library's own with its indexes, unless this object has
  // done that before. Call this if a row that should exist is not found. Throws a DatabaseError
  // with the cause kDamaged if they differ.
  void CheckIntact() const;

  // The functions below throw a DatabaseError with the cause kDamaged if they read a damaged row of
  // a database of this library's own.

  // WithDigest, WithName and WithFileName return all matching rows, the last indexed one first.
  // group is set for a member of a group.
  std::vector<Row> WithDigest(const std::string& digest) const;
  std::vector<Row> WithName(const std::optional<std::string>& group, const std::string& name) const;
  // Returns the rows of artifact directories with this name, wherever they are.
  std::vector<Row> WithFileName(const std::string& name) const;

  std::optional<Row> FindByPath(const std::string& artifact_path) const;
  // Finds a member of this group, or of any group if group is not set, by its snapshot id.
  std::optional<Row> FindBySnapshotId(const std::optional<std::string>& group,
                                      const std::string& id) const;
  // Returns all rows, newest first.
  std::vector<Row> All() const;
  // Returns the rows whose parent is row, oldest first.
  std::vector<Row> ChildrenOf(const Row& row) const;

  // Adds a row, and drops the existing rows with the same digest, path or name. In the layered era,
  // and in a database of this library's own, several artifacts may have the same digest; there, a
  // row with the same digest is dropped only if its artifact no longer exists. In a database of
  // this library's own, several rows may also have the same name.
  void Upsert(const Row& row);
  // Upserts all rows, and drops the rows of artifacts beneath dir that no longer exist, in one
  // transaction. If two rows exclude each other, the later one is kept. Returns the number of rows
  // that were kept.
  std::uint32_t Rebuild(const std::filesystem::path& dir, std::vector<Row> rows);
  // Drops the row of this path, and the rows of this digest whose artifacts no longer exist.
  void Erase(const std::string& artifact_path, const std::string& digest);

 private:
  // home is the directory to which stored paths are relative. It is empty for a database of the
  // runtime.
  explicit Index(base::Database db, std::filesystem::path home = {})
      : db_(std::move(db)), home_(std::move(home)) {}

  // Creates the table in a new database, and checks the table of an existing one.
  void PrepareOwn();
  // Adds the checksums that earlier versions did not write, and marks the database as not built.
  void AddChecksums();
  // Convert between the paths in the database and absolute paths.
  std::string Stored(const std::string& path) const;
  std::string Loaded(const std::string& path) const;
  Row Read(const Table& table, const base::Statement& statement) const;
  std::vector<Row> ReadAll(const Table& table, base::Statement& statement) const;
  std::optional<Row> ReadFirst(const Table& table, base::Statement& statement) const;
  [[noreturn]] void ThrowDamaged(std::string_view reason) const;
  void ErasePath(const std::string& artifact_path);
  // Updates child_count of the row that children name as their parent, or of all rows if parent is
  // not set.
  void RecountChildren(const Table& table, const std::optional<std::string>& parent);

  base::Database db_;
  std::filesystem::path home_;
  mutable bool was_checked_ = false;
};

}  // namespace msb::index

#endif  // MSB_SRC_INDEX_INDEX_H_
