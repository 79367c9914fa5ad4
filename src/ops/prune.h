// SPDX-License-Identifier: Apache-2.0
//
// Prune: removes snapshots by age, number and labels.

#ifndef MSB_SRC_OPS_PRUNE_H_
#define MSB_SRC_OPS_PRUNE_H_

#include <vector>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/handle/catalog.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// Returns the rows of the snapshots that were removed, or, with dry_run, that would be.
std::vector<index::Row> PruneSnapshots(const Context& ctx, ClientState& client,
                                       const SnapshotPruneOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_PRUNE_H_
