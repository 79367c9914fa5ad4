// SPDX-License-Identifier: Apache-2.0
//
// Resolves the paths in rows of an index, whose home may have been moved or copied since the rows
// were written.

#ifndef MSB_SRC_HANDLE_ROW_PATHS_H_
#define MSB_SRC_HANDLE_ROW_PATHS_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "src/base/home.h"
#include "src/index/row.h"

namespace msb::handle {

// Returns the absolute path for a path, or for a name in the snapshots directory.
std::filesystem::path PathOf(const base::Home& home, const std::string& path_or_name);

// Returns the row with the path of the artifact that it refers to in this home. A row whose path is
// in the home is returned unchanged, without accessing the disk. A row whose path is outside of the
// home refers to the artifact of the same name in the snapshots directory, if that artifact has the
// same digest and no row of its own (has_row). Returns nullopt if there is no such artifact and the
// path leads into another home, of which this home is a copy.
using HasRow = std::function<bool(const std::filesystem::path& path)>;
std::optional<index::Row> ResolveRow(const base::Home& home, index::Row row, const HasRow& has_row);

// Returns true if key, a name, path or digest, is a digest.
bool IsDigestKey(std::string_view key);

// Returns true if the directory has a valid manifest with this digest.
bool HasDigest(const std::filesystem::path& artifact, const std::string& digest);

// Returns true if path is not a copy of the artifact, but another name of it: a symbolic link or,
// on a file system that ignores case, another spelling.
bool IsAlias(const std::filesystem::path& path, const std::filesystem::path& artifact);

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_ROW_PATHS_H_
