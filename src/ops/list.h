// SPDX-License-Identifier: Apache-2.0
//
// List: returns the snapshots in a directory, and the sandboxes of a backend.

#ifndef MSB_SRC_OPS_LIST_H_
#define MSB_SRC_OPS_LIST_H_

#include <filesystem>
#include <string>
#include <vector>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/artifact/store.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// Returns the artifacts in dir, or in the snapshots directory if dir is empty. Logs those that
// cannot be read.
std::vector<artifact::Artifact> ListArtifacts(const Context& ctx, const ClientState& client,
                                              const std::filesystem::path& dir);

// Returns the sandboxes, newest first.
std::vector<vmm::SandboxRecord> SandboxesOf(const Context& ctx, const ClientState& client);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_LIST_H_
