// SPDX-License-Identifier: Apache-2.0
//
// Open: finds a snapshot and opens its files.

#ifndef MSB_SRC_OPS_OPEN_H_
#define MSB_SRC_OPS_OPEN_H_

#include <string>

#include "msb/context.h"
#include "src/artifact/disk_chain.h"
#include "src/artifact/store.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// Opens a snapshot by name or path. If it is in the snapshots directory, adds it to the index or
// brings its row up to date.
artifact::OpenedArtifact OpenSnapshot(const Context& ctx, ClientState& client,
                                      const std::string& path_or_name);

// Opens the files of a snapshot's disk, including those that it is backed by.
artifact::DiskChain OpenDisk(const Context& ctx, ClientState& client,
                             artifact::OpenedArtifact snapshot);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_OPEN_H_
