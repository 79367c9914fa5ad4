// SPDX-License-Identifier: Apache-2.0
//
// Import: unpacks an archive of snapshots.

#ifndef MSB_SRC_OPS_IMPORT_H_
#define MSB_SRC_OPS_IMPORT_H_

#include <filesystem>
#include <string>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/index/row.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// Returns the row of the snapshot that was exported.
index::Row ImportSnapshot(const Context& ctx, ClientState& client,
                          const std::filesystem::path& archive, const std::filesystem::path& dest,
                          const SnapshotImportOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_IMPORT_H_
