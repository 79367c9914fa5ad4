// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

constexpr std::size_t kGap = 2;  // Columns between two cells.

std::string Row(const std::vector<std::string>& cells, const std::vector<std::size_t>& shown,
                const std::vector<std::size_t>& widths) {
  std::string line;
  for (const std::size_t i : shown) {
    line += cells[i];
    if (i != shown.back()) line.append(widths[i] + kGap - Columns(cells[i]), ' ');
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line + '\n';
}

}  // namespace

void Table::Add(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = Printable(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::Text(std::size_t columns) const {
  std::vector<std::string> titles;
  std::vector<std::size_t> widths;
  for (const Column& column : columns_) {
    titles.push_back(column.title);
    widths.push_back(Columns(column.title));
  }
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Columns(row[i]));
  }
  std::vector<std::size_t> shown(columns_.size());
  std::iota(shown.begin(), shown.end(), std::size_t{0});
  const auto width = [&] {
    std::size_t sum = (shown.size() - 1) * kGap;
    for (const std::size_t i : shown) sum += widths[i];
    return sum;
  };
  while (columns != 0 && width() > columns) {
    const auto next =
        std::ranges::max_element(shown, {}, [&](std::size_t i) { return columns_[i].expendable; });
    if (columns_[*next].expendable == 0) break;
    shown.erase(next);
  }
  std::string text = Row(titles, shown, widths);
  for (const auto& row : rows_) text += Row(row, shown, widths);
  return text;
}

void Table::Print() const {
  Put(Text(IsTerminal(Stream::kOutput) ? TerminalColumns(Stream::kOutput) : 0));
}

}  // namespace msb::program
