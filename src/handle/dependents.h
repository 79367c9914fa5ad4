// SPDX-License-Identifier: Apache-2.0
//
// Finds the snapshots and sandboxes whose disks are backed by a snapshot's disk.

#ifndef MSB_SRC_HANDLE_DEPENDENTS_H_
#define MSB_SRC_HANDLE_DEPENDENTS_H_

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/artifact/store.h"
#include "src/handle/catalog.h"

namespace msb::handle {

// Returns whether the sandbox's disk is backed by that of the snapshot.
bool IsBackedBy(const vmm::SandboxRecord& sandbox, std::string_view snapshot_digest);

// Returns the names of the sandboxes whose disks are backed by that of the snapshot, sorted.
std::vector<std::string> SandboxesBackedBy(const std::vector<vmm::SandboxRecord>& sandboxes,
                                           std::string_view snapshot_digest);

// Throws kSnapshotHasChildren if the disks of indexed snapshots or of sandboxes are backed by the
// disk of old, a snapshot that is about to be replaced. The message names these snapshots and
// sandboxes. Children with a complete disk of their own do not count. If the index has no such
// child, looks for children in the snapshots directory.
// Throws kIO if no child is found, but an artifact in the snapshots directory, which may be a
// child, cannot be read.
void CheckReplaceable(const Context& ctx, Catalog& catalog, vmm::Backend& backend,
                      const artifact::Artifact& old);

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_DEPENDENTS_H_
