// SPDX-License-Identifier: Apache-2.0
//
// A Table describes the table snapshot_index of a database of any era: the columns that it has, and
// the SQL that reads and writes them. docs/formats.md lists the eras.

#ifndef MSB_SRC_INDEX_TABLE_H_
#define MSB_SRC_INDEX_TABLE_H_

#include <set>
#include <string>
#include <string_view>

#include "src/base/sqlite.h"
#include "src/index/row.h"

namespace msb::index {

enum class Era { kManifest, kDescriptor, kLayered };

class Table {
 public:
  // Reads the table's columns. Throws a DatabaseError (kUnsupportedOperation) with the cause
  // kNoTable if the table is absent, and with the cause kWrongSchema if it lacks a column that
  // every era has.
  explicit Table(const base::Database& db);

  // Returns the statements that create the table of a database of this library's own: the columns
  // of the manifest era, with one row for each artifact directory.
  static std::string CreationSql();

  Era era() const { return era_; }
  // Returns true for the table that CreationSql creates: its key is the path, so rows may share a
  // digest or a name.
  bool IsOwn() const { return keyed_by_path_ && era_ == Era::kManifest; }
  // Returns true if each digest has at most one row.
  bool HasUniqueDigests() const { return era_ != Era::kLayered && !IsOwn(); }

  // Returns false if the table has a column that needs a value and that this library does not know.
  bool IsWritable() const { return unknown_required_.empty(); }
  // Throws a DatabaseError (kUnsupportedOperation) with the cause kWrongSchema unless IsWritable().
  void CheckWritable() const;

  // Returns the statement "SELECT columns FROM snapshot_index rest". ReadRow reads its rows.
  std::string SelectSql(std::string_view rest) const;
  static Row ReadRow(const base::Statement& statement);
  // Returns false if row, which ReadRow read, is damaged: it differs from its checksum or, in a
  // database of this library's own that was written by an earlier version, has a malformed digest.
  // Tables of the runtime have no checksums, so their rows are always intact.
  bool IsIntact(const base::Statement& statement, const Row& row) const;
  // Returns true if the table has the checksums that CreationSql provides for.
  bool HasChecksums() const;
  // Returns the statement that adds them. The existing rows get none.
  static std::string AddChecksumsSql();

  std::string InsertSql() const;
  void BindRow(base::Statement& statement, const Row& row) const;

 private:
  std::string path_;
  std::set<std::string> columns_;
  std::set<std::string> unknown_required_;
  bool keyed_by_path_ = false;
  Era era_ = Era::kManifest;
};

}  // namespace msb::index

#endif  // MSB_SRC_INDEX_TABLE_H_
