// The table snapshot_index in whichever era it is found: which columns it has, and the SQL that
// reads and writes them. docs/formats.md lists the eras.

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
  // Looks at the table. kUnsupportedOperation: there is none, or one without the columns that every
  // era has.
  explicit Table(const base::Database& db);

  // The manifest era's table, for a database of this library's own.
  static std::string CreationSql();

  Era era() const { return era_; }

  // Throws kUnsupportedOperation if the table has a column that must be given a value and that
  // this library does not know.
  void CheckWritable() const;

  // "SELECT …columns… FROM snapshot_index " + rest; ReadRow reads what it returns.
  std::string SelectSql(std::string_view rest) const;
  static Row ReadRow(const base::Statement& statement);

  std::string InsertSql() const;
  void BindRow(base::Statement& statement, const Row& row) const;

 private:
  std::string path_;
  std::set<std::string> columns_;
  std::set<std::string> unknown_required_;
  Era era_ = Era::kManifest;
};

}  // namespace msb::index

#endif  // MSB_SRC_INDEX_TABLE_H_
