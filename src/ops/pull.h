// SPDX-License-Identifier: Apache-2.0
//
// Pull: gets snapshots from a registry.

#ifndef MSB_SRC_OPS_PULL_H_
#define MSB_SRC_OPS_PULL_H_

#include <filesystem>
#include <string>

#include "msb/context.h"
#include "msb/registry.h"
#include "src/index/row.h"
#include "src/ops/client_state.h"

namespace msb::ops {

index::Row PullSnapshot(const Context& ctx, ClientState& client, const std::string& reference,
                        const std::filesystem::path& dest, const SnapshotPullOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_PULL_H_
