// SPDX-License-Identifier: Apache-2.0
//
// Finds the snapshots and sandboxes that depend on a snapshot.

#ifndef MSB_SRC_HANDLE_DEPENDENTS_H_
#define MSB_SRC_HANDLE_DEPENDENTS_H_

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "msb/vmm/backend.h"
#include "src/artifact/store.h"
#include "src/handle/catalog.h"

namespace msb::handle {

// Returns whether the sandbox's disk is backed by that of the snapshot.
bool IsBackedBy(const vmm::SandboxRecord& sandbox, std::string_view snapshot_digest);

// Returns the names of the sandboxes whose disks are backed by that of the snapshot, sorted.
std::vector<std::string> SandboxesBackedBy(const std::vector<vmm::SandboxRecord>& sandboxes,
                                           std::string_view snapshot_digest);

// The dependents that were found in a directory.
struct Dependents {
  std::vector<artifact::Artifact> snapshots = {};
  // The error of the first artifact that cannot be read (kIO) and may be a dependent.
  std::optional<Error> unreadable = {};
};

// Reads the manifests in a directory and returns the snapshots whose parent has one of these
// digests or snapshot ids or, if parents is empty, all that have a parent. The index may lack such
// snapshots: a snapshot is published before its row is written, and stays without a row if the
// index is locked or the process is killed.
Dependents DependentsIn(const Context& ctx, const std::filesystem::path& dir,
                        const std::vector<std::string>& parents);
// Returns the children of a snapshot that are in the snapshots directory or beside the snapshot.
// An artifact that cannot be read is reported only if it is in the snapshots directory, since a
// snapshot elsewhere may be beside unrelated directories.
Dependents DependentsOf(const Context& ctx, const std::filesystem::path& snapshots_dir,
                        const index::Row& parent);

// Throws kSnapshotHasChildren if the disks of snapshots or of sandboxes are backed by the disk of
// old, a snapshot that is about to be replaced. The message names these snapshots and sandboxes.
// Children with a complete disk of their own do not count, nor does the sandbox with the name
// except. If the index has no such child, looks for children as DependentsOf does.
// Throws kIO if no child is found, but a snapshot or a sandbox that may need the disk cannot be
// read.
void CheckReplaceable(const Context& ctx, Catalog& catalog, const Catalog::Users& users,
                      const artifact::Artifact& old, std::string_view except);

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_DEPENDENTS_H_
