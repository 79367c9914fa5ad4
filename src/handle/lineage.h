// What a snapshot descends from.

#ifndef MSB_SRC_HANDLE_LINEAGE_H_
#define MSB_SRC_HANDLE_LINEAGE_H_

#include <cstddef>
#include <filesystem>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"
#include "src/handle/catalog.h"

namespace msb::handle {

// That a disk may stand on. QEMU opens more, but each costs memory and descriptors.
inline constexpr std::size_t kMaxBackingFiles = 200;

// The snapshot with all that it descends from, parents first, itself last. A parent is looked for
// in the index, beside its child, and in snapshots_dir. kSnapshotNotFound: one is missing.
std::vector<artifact::Artifact> LineageOf(const Context& ctx, Catalog& catalog,
                                          const std::filesystem::path& snapshots_dir,
                                          artifact::Artifact head);

// Throws kUnsupportedOperation unless the snapshot is one disk that can be booted from.
void CheckBootable(const artifact::Artifact& artifact);

// The files that a snapshot's disk stands on, the next one first: those of its parents, as far as
// each is a qcow2 overlay of the next, and then its image, in cache_dir. None for a disk that is
// whole. kSnapshotNotFound: a parent is missing. kSnapshotImageMissing. kSnapshotIntegrity: a disk
// names a file that is neither its parent's nor its image's. kUnsupportedOperation: one cannot be
// used as a disk.
std::vector<vmm::BackingFile> BackingOf(const Context& ctx, Catalog& catalog,
                                        const std::filesystem::path& snapshots_dir,
                                        const std::filesystem::path& cache_dir,
                                        artifact::Artifact artifact);

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_LINEAGE_H_
