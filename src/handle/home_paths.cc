#include "src/handle/home_paths.h"

#include <fmt/format.h>

#include <system_error>
#include <utility>
#include <vector>

#include "msb/error.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/sqlite.h"
#include "src/base/text.h"

namespace msb::handle {
namespace {

namespace fs = std::filesystem;
using base::DatabaseError;

// Returns path with its symbolic links resolved; path itself if that cannot be done.
fs::path Canonical(const fs::path& path) {
  std::error_code error;
  fs::path canonical = fs::canonical(path, error);
  return error ? path : canonical;
}

// Returns the part of an artifact's path beneath the snapshots directory: GROUP/NAME for a member
// of a group, else NAME.
fs::path BeneathSnapshots(const fs::path& path, bool is_member) {
  return is_member ? path.parent_path().filename() / path.filename() : path.filename();
}

}  // namespace

fs::path RuntimeDatabase(const fs::path& home) { return home / "db" / "msb.db"; }

std::optional<fs::path> FindRuntimeDatabase(const fs::path& home) {
  const fs::path path = RuntimeDatabase(home);
  std::error_code error;
  const fs::file_type link = fs::symlink_status(path, error).type();
  if (link == fs::file_type::not_found) return std::nullopt;
  if (link == fs::file_type::none) {
    throw DatabaseError(DatabaseError::Cause::kInaccessible, ErrorKind::kIO,
                        fmt::format("cannot look up {}: {}; check the permissions of {}",
                                    path.native(), error.message(), path.parent_path().native()));
  }
  const fs::file_type type = fs::status(path, error).type();
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
                  "restore the database, or move this away, after which snapshots are found by "
                  "their artifacts",
                  path.native(), found));
}

bool IsDigestKey(std::string_view key) { return key.starts_with("sha256:"); }

bool HasDigest(const fs::path& artifact, const std::string& digest) {
  try {
    const auto manifest = artifact::ReadManifest(artifact);
    return manifest && manifest->digest == digest;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kIO) throw;
    return false;
  }
}

bool HomePaths::IsOwn(const fs::path& path) const {
  return base::IsBeneath(path, snapshots_dir_) || base::IsBeneath(path, home_);
}

fs::path HomePaths::RespellDirectory(const fs::path& dir) const {
  if (dir == snapshots_dir_ || dir == home_ || IsOwn(dir)) return dir;
  const fs::path given = Canonical(dir);
  for (const fs::path& own : {snapshots_dir_, home_}) {
    const fs::path canonical = Canonical(own);
    if (given == canonical) return own;
    if (base::IsBeneath(given, canonical)) return own / given.lexically_relative(canonical);
  }
  return dir;
}

fs::path HomePaths::Respell(const fs::path& artifact) const {
  if (IsOwn(artifact) || !artifact.has_filename()) return artifact;
  return RespellDirectory(artifact.parent_path()) / artifact.filename();
}

fs::path HomePaths::PathOf(const std::string& path_or_name) const {
  return artifact::IsPath(path_or_name) ? Respell(base::AbsolutePath(path_or_name))
                                        : snapshots_dir_ / path_or_name;
}

std::optional<fs::path> HomePaths::CounterpartOf(const index::Row& row,
                                                 const HasRow& has_row) const {
  const bool is_member = row.group_path.has_value();
  std::vector<fs::path> places;
  if (row.name && !is_member && base::IsPlainFileName(*row.name)) {
    places.push_back(snapshots_dir_ / *row.name);
  }
  places.push_back(snapshots_dir_ / BeneathSnapshots(row.artifact_path, is_member));
  for (const fs::path& place : places) {
    if (HasDigest(place, row.digest) && !has_row(place)) return place;
  }
  return std::nullopt;
}

bool HomePaths::IsInAnotherHome(const fs::path& artifact) const {
  // The path is HOME/snapshots/NAME or HOME/snapshots/GROUP/NAME.
  fs::path home = artifact.parent_path();
  for (int level = 0; level < 2; ++level) {
    home = home.parent_path();
    if (home == home_ || Canonical(home) == Canonical(home_)) return false;
    std::error_code error;
    for (const char* name : {"msb.db", "snapshots.db"}) {
      if (fs::is_regular_file(home / "db" / name, error)) return true;
    }
  }
  return false;
}

std::optional<index::Row> HomePaths::Resolve(index::Row row, const HasRow& has_row) const {
  const fs::path given = row.artifact_path;
  if (IsOwn(given)) return row;
  fs::path path = Respell(given);
  if (path == given) {
    if (auto counterpart = CounterpartOf(row, has_row)) {
      path = *std::move(counterpart);
    } else if (IsInAnotherHome(given)) {
      return std::nullopt;
    }
  }
  row.artifact_path = path.native();
  if (row.group_path && path != given) row.group_path = path.parent_path().native();
  return row;
}

}  // namespace msb::handle
