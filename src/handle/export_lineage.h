// SPDX-License-Identifier: Apache-2.0
//
// Determines which snapshots an archive carries.

#ifndef MSB_SRC_HANDLE_EXPORT_LINEAGE_H_
#define MSB_SRC_HANDLE_EXPORT_LINEAGE_H_

#include <optional>
#include <string>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"
#include "src/handle/finder.h"

namespace msb::handle {

struct ExportLineage {
  // Parents first; the last is the head. If there are very many snapshots, the files of some of
  // them are closed.
  std::vector<artifact::OpenedArtifact> snapshots;
  // The digest of a snapshot that was left out and that the receiver must have, because the oldest
  // of the snapshots descends from it.
  std::optional<std::string> needed;
};

// Returns the head and the snapshots that its disk is backed by; with_parents adds all other
// snapshots that it descends from. since is the digest of the snapshot at which to stop: that
// snapshot and all snapshots that it descends from are left out. If since is not set, nothing is
// left out.
// Throws kSnapshotNotFound if a parent is missing.
// Throws kSnapshotIntegrity if the disk of a snapshot is backed by a file that is neither the disk
// of its parent nor its image, or if a snapshot is among its own ancestors.
// Throws kInvalidArgument if since is the head itself, or the head does not descend from it.
// Throws kUnsupportedOperation if since is set and the head is a 0.7 snapshot.
ExportLineage LineageForExport(const Context& ctx, SnapshotFinder& finder,
                               artifact::OpenedArtifact head, bool with_parents,
                               const std::optional<std::string>& since);

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_EXPORT_LINEAGE_H_
