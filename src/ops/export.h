// SPDX-License-Identifier: Apache-2.0
//
// Export: writes a snapshot to an archive.

#ifndef MSB_SRC_OPS_EXPORT_H_
#define MSB_SRC_OPS_EXPORT_H_

#include <filesystem>
#include <string>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/ops/client_state.h"

namespace msb::ops {

void ExportSnapshot(const Context& ctx, ClientState& client, const std::string& name_or_path,
                    const std::filesystem::path& out_path, const SnapshotExportOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_EXPORT_H_
