// SPDX-License-Identifier: Apache-2.0
//
// Flatten: writes the disk of a snapshot to one file that can be booted by itself.

#ifndef MSB_SRC_OPS_FLATTEN_H_
#define MSB_SRC_OPS_FLATTEN_H_

#include <filesystem>
#include <string>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/ops/client_state.h"

namespace msb::ops {

void FlattenSnapshot(const Context& ctx, ClientState& client, const std::string& name_or_path,
                     const std::filesystem::path& out_path, const SnapshotFlattenOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_FLATTEN_H_
