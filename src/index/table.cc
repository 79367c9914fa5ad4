// SPDX-License-Identifier: Apache-2.0

#include "src/index/table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <vector>

#include "msb/error.h"
#include "src/base/digest.h"

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

// The checksum of a row of this library's own. The runtimes have no such column. It is the last
// column that SelectSql reads.
constexpr std::string_view kChecksum = "row_checksum";
constexpr int kChecksumIndex = kRowColumns.size();

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
         column == kChecksum || Contains(kNullColumns, column);
}

std::optional<std::string> NullIfEmpty(const std::string& text) {
  if (text.empty()) return std::nullopt;
  return text;
}

// Returns the FNV-1a hash of the columns that CreationSql creates, except indexed_at and
// child_count, which do not affect results.
std::int64_t ChecksumOf(const Row& row) {
  constexpr std::uint64_t kPrime = 0x100000001b3;
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * kPrime;
  };
  const auto add_field = [&](std::string_view text) {
    add(fmt::format("{}:", text.size()));
    add(text);
  };
  const auto add_optional = [&](const std::optional<std::string>& text) {
    text ? add_field(*text) : add("-");
  };
  add_field(row.digest);
  add_optional(row.name);
  add_optional(row.parent_digest);
  add_field(row.image_ref);
  add_field(row.image_manifest_digest);
  add_field(row.format);
  add_field(row.fstype);
  add_field(row.artifact_path);
  const auto size = static_cast<std::int64_t>(row.size_bytes.value_or(0));
  add_field(row.size_bytes && size >= 0 ? fmt::format("{}", size) : "-");
  // Hashes the time as it is read back: a time that cannot be parsed is lost.
  const auto created = base::ParseIndexTime(base::FormatIndexTime(row.created_at));
  add_field(base::FormatIndexTime(created.value_or(base::UtcTime{})));
  return static_cast<std::int64_t>(hash);
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
                    "this library does not support; update this library, or use the "
                    "runtime that created it",
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
      indexed_at TEXT NOT NULL, child_count INTEGER NOT NULL DEFAULT 0, row_checksum INTEGER);
    CREATE INDEX IF NOT EXISTS idx_snapshot_index_digest ON snapshot_index (digest);
    CREATE INDEX IF NOT EXISTS idx_snapshot_index_name ON snapshot_index (name);
    CREATE INDEX IF NOT EXISTS idx_snapshot_index_parent ON snapshot_index (parent_digest);)";
}

bool Table::HasChecksums() const { return columns_.contains(std::string(kChecksum)); }

std::string Table::AddChecksumsSql() {
  return fmt::format("ALTER TABLE snapshot_index ADD COLUMN {} INTEGER", kChecksum);
}

bool Table::IsIntact(const base::Statement& statement, const Row& row) const {
  if (!IsOwn()) return true;
  const auto checksum = statement.OptionalInteger(kChecksumIndex);
  return checksum ? *checksum == ChecksumOf(row) : base::IsDigest(row.digest, "sha256");
}

void Table::CheckWritable() const {
  if (IsWritable()) return;
  ThrowWrongSchema(fmt::format(
      "cannot write the snapshot index of {}: its column '{}' is unknown to this library; update "
      "this library, or use the runtime that created it",
      path_, *unknown_required_.begin()));
}

std::string Table::SelectSql(std::string_view rest) const {
  std::vector<std::string> columns;
  columns.reserve(kRowColumns.size());
  for (const std::string_view column : kRowColumns) {
    columns.emplace_back(columns_.contains(std::string(column)) ? column : "NULL");
  }
  columns.emplace_back(HasChecksums() ? kChecksum : "NULL");
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
  add(kChecksum);
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
  bind(kChecksum, ChecksumOf(row));
}

}  // namespace msb::index
