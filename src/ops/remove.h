// SPDX-License-Identifier: Apache-2.0
//
// Remove: deletes a snapshot and its index row.

#ifndef MSB_SRC_OPS_REMOVE_H_
#define MSB_SRC_OPS_REMOVE_H_

#include <string>

#include "msb/context.h"
#include "src/index/row.h"
#include "src/ops/client_state.h"

namespace msb::ops {

void RemoveSnapshot(const Context& ctx, ClientState& client, const std::string& path_or_name,
                    bool force);
// Removes the snapshot of this row, or another copy of it if it is no longer at the row's path.
void RemoveSnapshot(const Context& ctx, ClientState& client, const index::Row& row, bool force);
// Removes the snapshot of this row without force, and never another copy of it. Throws
// kSnapshotNotFound if the snapshot is no longer at the row's path.
void RemoveListed(const Context& ctx, ClientState& client, const index::Row& row);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_REMOVE_H_
