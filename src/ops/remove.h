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
// Removes the snapshot of this row.
void RemoveSnapshot(const Context& ctx, ClientState& client, const index::Row& row, bool force);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_REMOVE_H_
