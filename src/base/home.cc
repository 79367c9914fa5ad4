// SPDX-License-Identifier: Apache-2.0

#include "src/base/home.h"

#include <fmt/format.h>

#include <system_error>

#include "src/base/file.h"
#include "src/base/sqlite.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDatabaseDir = "db";
constexpr std::string_view kOwnDatabase = "snapshots.db";
constexpr std::string_view kRuntimeDatabase = "msb.db";

// Returns path with its symbolic links resolved; path itself if that cannot be done.
fs::path Canonical(const fs::path& path) {
  std::error_code error;
  fs::path canonical = fs::canonical(path, error);
  return error ? path : canonical;
}

}  // namespace

Home::Home(const Directories& directories) : path_(AbsolutePath(directories.home.native())) {
  const auto choose = [&](const fs::path& dir, const char* name) {
    return dir.empty() ? path_ / name : AbsolutePath(dir.native());
  };
  snapshots_dir_ = choose(directories.snapshots, "snapshots");
  sandboxes_dir_ = choose(directories.sandboxes, "sandboxes");
  cache_dir_ = choose(directories.cache, "cache");
}

fs::path Home::DatabaseDir() const { return path_ / kDatabaseDir; }
fs::path Home::OwnDatabase() const { return DatabaseDir() / kOwnDatabase; }
fs::path Home::RuntimeDatabase() const { return DatabaseDir() / kRuntimeDatabase; }

std::optional<fs::path> Home::FindRuntimeDatabase() const {
  const fs::path path = RuntimeDatabase();
  std::error_code error;
  const auto known = [&](fs::file_type type) {
    if (type != fs::file_type::none) return type;
    throw DatabaseError(DatabaseError::Cause::kInaccessible, ErrorKind::kIO,
                        fmt::format("cannot look up {}: {}; {}", path.native(), error.message(),
                                    NextStep(error.value(), path.native())));
  };
  const fs::file_type link = known(fs::symlink_status(path, error).type());
  if (link == fs::file_type::not_found) return std::nullopt;
  const fs::file_type type = known(fs::status(path, error).type());
  if (type == fs::file_type::regular) {
    return link == fs::file_type::symlink ? Canonical(path) : path;
  }
  const char* found = link == fs::file_type::symlink
                          ? "a symbolic link that does not lead to a regular file"
                      : type == fs::file_type::directory ? "a directory"
                                                         : "a special file";
  throw DatabaseError(
      DatabaseError::Cause::kDamaged, ErrorKind::kIO,
      fmt::format("{} must be the database of the microsandbox runtime, a regular file, but is {}; "
                  "restore the database, or move this entry away; snapshots are then found by "
                  "their artifacts",
                  path.native(), found));
}

bool Home::IsOwn(const fs::path& path) const {
  return IsBeneath(path, snapshots_dir_) || IsBeneath(path, path_);
}

bool Home::IsAt(const fs::path& path) const {
  return path == path_ || Canonical(path) == Canonical(path_);
}

bool Home::IsHome(const fs::path& path) {
  std::error_code error;
  for (const std::string_view name : {kRuntimeDatabase, kOwnDatabase}) {
    if (fs::is_regular_file(path / kDatabaseDir / name, error)) return true;
  }
  return false;
}

fs::path Home::RespellDirectory(const fs::path& dir) const {
  if (dir == snapshots_dir_ || dir == path_ || IsOwn(dir)) return dir;
  const fs::path given = Canonical(dir);
  for (const fs::path& own : {snapshots_dir_, path_}) {
    const fs::path canonical = Canonical(own);
    if (given == canonical) return own;
    if (IsBeneath(given, canonical)) return own / given.lexically_relative(canonical);
  }
  return dir;
}

fs::path Home::Respell(const fs::path& artifact) const {
  if (IsOwn(artifact) || !artifact.has_filename()) return artifact;
  return RespellDirectory(artifact.parent_path()) / artifact.filename();
}

}  // namespace msb::base
