// SPDX-License-Identifier: Apache-2.0

#include "src/index/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "msb/error.h"

namespace msb::index {
namespace {

// The columns that a Row is read from, in the order of ReadRow.
constexpr std::array<std::string_view, 16> kRowColumns = {
    "digest",      "name",          "group_name",    "group_path",
    "snapshot_id", "parent_digest", "image_ref",     "image_manifest_digest",
    "format",      "fstype",        "artifact_path", "size_bytes",
    "created_at",  "scope",         "state_kind",    "checkpoint_manifest_digest"};

// Further columns that are written: from the row, with the current time, or with a constant.
constexpr std::array<std::string_view, 6> kWrittenColumns = {
    "descriptor_digest", "indexed_at",   "child_count",
    "locality",          "availability", "migration_state"};

// Columns that are known, and left NULL.
constexpr std::array<std::string_view, 2> kNullColumns = {"storage_binding_id",
                                                          "migration_error_code"};

constexpr std::array<std::string_view, 7> kColumnsOfEveryEra = {
    "digest",        "name",      "parent_digest", "image_ref", "image_manifest_digest",
    "artifact_path", "created_at"};

template <typename Names>
bool Contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool IsKnown(std::string_view column) {
  return Contains(kRowColumns, column) || Contains(kWrittenColumns, column) ||
         Contains(kNullColumns, column);
}

std::optional<std::string> NullIfEmpty(const std::string& text) {
  if (text.empty()) return std::nullopt;
  return text;
}

[[noreturn]] void ThrowWrongSchema(const std::string& message) {
  throw base::DatabaseError(base::DatabaseError::Cause::kWrongSchema,
                            ErrorKind::kUnsupportedOperation, message);
}

}  // namespace

Table::Table(const base::Database& db) : path_(db.path().native()) {
  db.RequireTable("snapshot_index");
  base::Statement info(db,
                       "SELECT name, \"notnull\", dflt_value, pk FROM "
                       "pragma_table_info('snapshot_index')");
  while (info.Step()) {
    const std::string column = info.Text(0);
    const bool required = info.Integer(1) != 0 && !info.OptionalText(2) && info.Integer(3) == 0;
    columns_.insert(column);
    if (column == "artifact_path" && info.Integer(3) != 0) keyed_by_path_ = true;
    if (required && !IsKnown(column)) unknown_required_.insert(column);
  }
  for (const std::string_view column : kColumnsOfEveryEra) {
    if (columns_.contains(std::string(column))) continue;
    ThrowWrongSchema(
        fmt::format("the snapshot index of {} has no column '{}'; it was created by a release that "
                    "this library does not support",
                    path_, column));
  }
  if (columns_.contains("group_path") && columns_.contains("snapshot_id")) {
    era_ = Era::kLayered;
  } else if (columns_.contains("scope")) {
    era_ = Era::kDescriptor;
  }
}

std::string Table::CreationSql() {
  return R"(
    CREATE TABLE IF NOT EXISTS snapshot_index (
      artifact_path TEXT NOT NULL PRIMARY KEY, digest TEXT NOT NULL, name TEXT, parent_digest TEXT,
      image_ref TEXT NOT NULL, image_manifest_digest TEXT NOT NULL, format TEXT NOT NULL,
      fstype TEXT NOT NULL, size_bytes BIGINT, created_at TEXT NOT NULL,
      indexed_at TEXT NOT NULL, child_count INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX IF NOT EXISTS idx_snapshot_index_digest ON snapshot_index (digest);
    CREATE INDEX IF NOT EXISTS idx_snapshot_index_name ON snapshot_index (name);
    CREATE INDEX IF NOT EXISTS idx_snapshot_index_parent ON snapshot_index (parent_digest);)";
}

void Table::CheckWritable() const {
  if (IsWritable()) return;
  ThrowWrongSchema(fmt::format(
      "cannot write the snapshot index of {}: its column '{}' is unknown to this library; use the "
      "runtime that created it",
      path_, *unknown_required_.begin()));
}

std::string Table::SelectSql(std::string_view rest) const {
  std::vector<std::string> columns;
  columns.reserve(kRowColumns.size());
  for (const std::string_view column : kRowColumns) {
    columns.emplace_back(columns_.contains(std::string(column)) ? column : "NULL");
  }
  return fmt::format("SELECT {} FROM snapshot_index {}", fmt::join(columns, ","), rest);
}

Row Table::ReadRow(const base::Statement& statement) {
  Row row;
  int column = 0;
  row.digest = statement.Text(column++);
  row.name = statement.OptionalText(column++);
  row.group_name = statement.OptionalText(column++);
  row.group_path = statement.OptionalText(column++);
  row.snapshot_id = statement.OptionalText(column++);
  row.parent_digest = statement.OptionalText(column++);
  row.image_ref = statement.Text(column++);
  row.image_manifest_digest = statement.Text(column++);
  row.format = statement.Text(column++);
  row.fstype = statement.Text(column++);
  row.artifact_path = statement.Text(column++);
  const auto size = statement.OptionalInteger(column++);
  if (size && *size >= 0) row.size_bytes = static_cast<std::uint64_t>(*size);
  row.created_at = base::ParseIndexTime(statement.Text(column++)).value_or(base::UtcTime{});
  row.scope = statement.OptionalText(column++).value_or("disk");
  row.state_kind = statement.OptionalText(column++).value_or("file");
  row.checkpoint_manifest_digest = statement.OptionalText(column++);
  return row;
}

std::string Table::InsertSql() const {
  std::vector<std::string> columns;
  std::vector<std::string> parameters;
  const auto add = [&](std::string_view column) {
    if (!columns_.contains(std::string(column))) return;
    columns.emplace_back(column);
    parameters.push_back(fmt::format("?{}", parameters.size() + 1));
  };
  std::for_each(kRowColumns.begin(), kRowColumns.end(), add);
  std::for_each(kWrittenColumns.begin(), kWrittenColumns.end(), add);
  return fmt::format("INSERT INTO snapshot_index ({}) VALUES ({})", fmt::join(columns, ","),
                     fmt::join(parameters, ","));
}

void Table::BindRow(base::Statement& statement, const Row& row) const {
  int index = 0;
  const auto bind = [&](std::string_view column, const auto& value) {
    if (columns_.contains(std::string(column))) statement.Bind(++index, value);
  };
  // In the order of kRowColumns, then kWrittenColumns. format and fstype may be NULL from the
  // descriptor era on, and must not be NULL before.
  const bool nullable = era_ != Era::kManifest;
  bind("digest", std::string_view(row.digest));
  bind("name", row.name);
  bind("group_name", row.group_name);
  bind("group_path", row.group_path);
  bind("snapshot_id", row.snapshot_id);
  bind("parent_digest", row.parent_digest);
  bind("image_ref", std::string_view(row.image_ref));
  bind("image_manifest_digest", std::string_view(row.image_manifest_digest));
  bind("format", nullable ? NullIfEmpty(row.format) : std::optional(row.format));
  bind("fstype", nullable ? NullIfEmpty(row.fstype) : std::optional(row.fstype));
  bind("artifact_path", std::string_view(row.artifact_path));
  if (row.size_bytes) {
    bind("size_bytes", static_cast<std::int64_t>(*row.size_bytes));
  } else {
    bind("size_bytes", std::optional<std::string>());
  }
  bind("created_at", std::string_view(base::FormatIndexTime(row.created_at)));
  bind("scope", std::string_view(row.scope));
  bind("state_kind", std::string_view(row.state_kind));
  bind("checkpoint_manifest_digest", row.checkpoint_manifest_digest);
  bind("descriptor_digest", std::string_view(row.digest));
  bind("indexed_at", std::string_view(base::FormatIndexTime(base::UtcTime::Now())));
  bind("child_count", std::int64_t{0});
  bind("locality", std::string_view("embedded"));
  bind("availability", std::string_view("ready"));
  bind("migration_state", std::string_view("canonical"));
}

}  // namespace msb::index
