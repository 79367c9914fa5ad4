// SPDX-License-Identifier: Apache-2.0
//
// Usage: counts the space that snapshots take.

#ifndef MSB_SRC_OPS_USAGE_H_
#define MSB_SRC_OPS_USAGE_H_

#include <vector>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/ops/client_state.h"

namespace msb::ops {

std::vector<SnapshotUsage> UsageOfSnapshots(const Context& ctx, ClientState& client);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_USAGE_H_
