// SPDX-License-Identifier: Apache-2.0

#include "src/handle/row_paths.h"

#include <utility>
#include <vector>

#include "msb/error.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/text.h"

namespace msb::handle {
namespace {

namespace fs = std::filesystem;
using base::Home;

// Returns the part of an artifact's path beneath the snapshots directory: GROUP/NAME for a member
// of a group, else NAME.
fs::path BeneathSnapshots(const fs::path& path, bool is_member) {
  return is_member ? path.parent_path().filename() / path.filename() : path.filename();
}

std::optional<fs::path> CounterpartOf(const Home& home, const index::Row& row,
                                      const HasRow& has_row) {
  const bool is_member = row.group_path.has_value();
  std::vector<fs::path> places;
  if (row.name && !is_member && base::IsPlainFileName(*row.name)) {
    places.push_back(home.snapshots_dir() / *row.name);
  }
  places.push_back(home.snapshots_dir() / BeneathSnapshots(row.artifact_path, is_member));
  for (const fs::path& place : places) {
    if (HasDigest(place, row.digest) && !has_row(place)) return place;
  }
  return std::nullopt;
}

bool IsInAnotherHome(const Home& home, const fs::path& artifact) {
  // The path is HOME/snapshots/NAME or HOME/snapshots/GROUP/NAME.
  fs::path place = artifact.parent_path();
  for (int level = 0; level < 2; ++level) {
    place = place.parent_path();
    if (home.IsAt(place)) return false;
    if (Home::IsHome(place)) return true;
  }
  return false;
}

}  // namespace

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

bool IsAlias(const fs::path& path, const fs::path& artifact) {
  std::error_code error;
  return path == artifact || fs::is_symlink(path, error) || fs::equivalent(path, artifact, error);
}

fs::path PathOf(const Home& home, const std::string& path_or_name) {
  return artifact::IsPath(path_or_name) ? home.Respell(base::AbsolutePath(path_or_name))
                                        : home.snapshots_dir() / path_or_name;
}

std::optional<index::Row> ResolveRow(const Home& home, index::Row row, const HasRow& has_row) {
  const fs::path given = row.artifact_path;
  if (home.IsOwn(given)) return row;
  fs::path path = home.Respell(given);
  if (path == given) {
    if (auto counterpart = CounterpartOf(home, row, has_row)) {
      path = *std::move(counterpart);
    } else if (IsInAnotherHome(home, given)) {
      return std::nullopt;
    }
  }
  row.artifact_path = path.native();
  if (row.group_path && path != given) row.group_path = path.parent_path().native();
  return row;
}

}  // namespace msb::handle
