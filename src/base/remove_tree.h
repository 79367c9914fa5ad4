// SPDX-License-Identifier: Apache-2.0
//
// Deletes directory trees by descriptor. Symbolic links are not followed. Several processes may
// delete the same tree, so an entry that disappears meanwhile is not an error.

#ifndef MSB_SRC_BASE_REMOVE_TREE_H_
#define MSB_SRC_BASE_REMOVE_TREE_H_

#include <filesystem>
#include <string>

#include "msb/context.h"

namespace msb::base {

// Deletes everything in the directory dir, which must be open for reading. Makes directories
// writable for their owner where necessary. Uses one additional descriptor, regardless of the depth
// of the tree, except on overlayfs, where directories of a lower layer take one descriptor for each
// level.
// Returns false if ctx ended first. Checks ctx every 64 entries.
// Throws kIO if an entry cannot be deleted, after deleting all others.
bool RemoveContents(const Context& ctx, int dir);

// Deletes the file, symbolic link or directory tree dir/name. Does nothing if it is absent. Takes
// no Context: a removal that has begun is completed, and a cancelled call cleans up. Throws kIO as
// RemoveContents does.
void RemoveTreeAt(int dir, const std::string& name);
// Does the same for a path.
void RemoveTree(const std::filesystem::path& path);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_REMOVE_TREE_H_
