// What a snapshot descends from.

#ifndef MSB_SRC_HANDLE_LINEAGE_H_
#define MSB_SRC_HANDLE_LINEAGE_H_

#include <filesystem>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"
#include "src/handle/catalog.h"

namespace msb::handle {

// The snapshot with all that it descends from, parents first, itself last. A parent is looked for
// in the index, beside its child, and in snapshots_dir. kSnapshotNotFound: one is missing.
std::vector<artifact::Artifact> LineageOf(const Context& ctx, Catalog& catalog,
                                          const std::filesystem::path& snapshots_dir,
                                          artifact::Artifact head);

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_LINEAGE_H_
