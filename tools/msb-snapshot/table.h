// SPDX-License-Identifier: Apache-2.0
//
// Prints rows in aligned columns.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_TABLE_H_
#define MSB_TOOLS_MSB_SNAPSHOT_TABLE_H_

#include <cstddef>
#include <string>
#include <vector>

namespace msb::program {

struct Column {
  std::string title;
  // On a terminal that is too narrow for all columns, the column with the highest number is left
  // out first. 0: the column is always shown.
  int expendable = 0;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // Adds a row with a cell for each column. Control characters in cells are escaped.
  void Add(std::vector<std::string> cells);

  // Returns the lines of the table, no wider than columns if that is possible by leaving out
  // expendable columns. 0 means that the width is not limited.
  std::string Text(std::size_t columns) const;

  // Prints the table to standard output, as wide as the terminal if it is one.
  void Print() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_TABLE_H_
