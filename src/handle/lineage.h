// SPDX-License-Identifier: Apache-2.0
//
// Finds the files that the disk of a snapshot is backed by.

#ifndef MSB_SRC_HANDLE_LINEAGE_H_
#define MSB_SRC_HANDLE_LINEAGE_H_

#include <cstddef>
#include <optional>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/artifact/disk_chain.h"
#include "src/artifact/store.h"
#include "src/base/staging.h"
#include "src/handle/finder.h"

namespace msb::handle {

// The maximum number of files that a disk may be backed by. QEMU can open more files, but each of
// them takes memory and descriptors.
inline constexpr std::size_t kMaxBackingFiles = 200;

// Returns true if the disk of the snapshot is backed by its parent's disk, and false if it is
// backed by its image or by nothing. Throws kSnapshotIntegrity if it is backed by anything else.
bool IsBackedByParent(const artifact::OpenedArtifact& opened);

// Throws kUnsupportedOperation if the snapshot is a checkpoint, has several layers, or requires an
// extension.
void CheckBootable(const artifact::Artifact& artifact);

// Opens the files of a snapshot's disk: its own file, the disks of the parents that it is backed
// by, and the image in the cache if the last of these disks is backed by the image. A raw disk is
// not backed by anything. If the disk has several layers, returns all of them.
// Throws kSnapshotNotFound if a parent is missing.
// Throws kSnapshotImageMissing if the image is missing.
// Throws kSnapshotIntegrity if a disk names a file that is neither its parent's nor its image's.
// Throws kUnsupportedOperation for a checkpoint, if a parent does not pass CheckBootable, and if
// the disk is backed by the disks of more than kMaxBackingFiles snapshots.
artifact::DiskChain OpenDisk(SnapshotFinder& finder, artifact::OpenedArtifact head);

// Returns whether every file that the sandbox's disk is backed by also exists outside of the
// sandbox: the disks of its snapshot and of that snapshot's parents, and the image in the cache. A
// snapshot that takes over the disk can be booted only if they do. descendant is a snapshot of the
// sandbox, which need not exist yet.
bool HasBacking(const Context& ctx, Catalog& catalog, const vmm::SandboxRecord& sandbox,
                const artifact::Artifact& descendant);
// Does the same, and locks the snapshot that the disk is backed by, so that it is neither removed
// nor replaced before descendant is published: Remove looks for the children of a snapshot while
// it has the snapshot locked. Returns nullopt if a file is missing, and an empty object if the disk
// is not backed by a snapshot. The caller must not have an artifact locked.
// Throws kCancelled if ctx ends while another call replaces or removes the snapshot.
std::optional<base::LockedDirectory> LockBacking(const Context& ctx, Catalog& catalog,
                                                 const vmm::SandboxRecord& sandbox,
                                                 const artifact::Artifact& descendant);

// Adds the snapshot that the sandbox descends from to the index again if its row is missing and it
// is still at the path that the sandbox's record names. This is needed because a parent outside the
// home is found only by its row, which may have been lost or never written. Throws kCancelled if
// ctx ends.
void IndexParent(const Context& ctx, Catalog& catalog, const vmm::SandboxRecord& sandbox);

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_LINEAGE_H_
