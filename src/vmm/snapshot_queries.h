// SPDX-License-Identifier: Apache-2.0
//
// The questions about snapshots that a backend asks its caller, because a backend knows disks but
// not artifacts.

#ifndef MSB_SRC_VMM_SNAPSHOT_QUERIES_H_
#define MSB_SRC_VMM_SNAPSHOT_QUERIES_H_

#include <filesystem>
#include <functional>
#include <string>

#include "msb/vmm/backend.h"

namespace msb::vmm {

// Returns whether the artifact directory holds a published snapshot with this digest.
using PublishedPredicate =
    std::function<bool(const std::filesystem::path& artifact, const std::string& digest)>;

struct SnapshotQueries {
  // Decides whether a failed or interrupted seal is rolled forward or back.
  PublishedPredicate is_published = {};
  // Throws kSnapshotNotFound if the snapshot or one of its parents was replaced, by force, since it
  // was opened. Called after the files of the snapshot have been copied or linked.
  std::function<void(const SnapshotSource& snapshot)> check_unreplaced = {};
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_SNAPSHOT_QUERIES_H_
