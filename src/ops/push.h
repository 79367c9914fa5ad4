// SPDX-License-Identifier: Apache-2.0
//
// Push: sends snapshots to a registry.

#ifndef MSB_SRC_OPS_PUSH_H_
#define MSB_SRC_OPS_PUSH_H_

#include <string>

#include "msb/context.h"
#include "msb/registry.h"
#include "src/ops/client_state.h"

namespace msb::ops {

std::string PushSnapshot(const Context& ctx, ClientState& client, const std::string& name_or_path,
                         const std::string& reference, const SnapshotPushOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_PUSH_H_
