// SPDX-License-Identifier: Apache-2.0
//
// Opens a snapshot for a backend that makes the disk of a sandbox from it.

#ifndef MSB_SRC_OPS_SNAPSHOT_SOURCE_H_
#define MSB_SRC_OPS_SNAPSHOT_SOURCE_H_

#include <functional>
#include <string>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// Opens a snapshot, given by name or path, and passes its disk to use, whose result it returns. A
// backend gets paths, so if use fails and one of them no longer leads to the file that was found
// there, opens the snapshot again, up to 20 times.
// Throws kUnsupportedOperation if the snapshot cannot be booted.
// Throws kSnapshotNotFound if it does not exist, or was removed or replaced each time.
using SourceUser = std::function<vmm::SandboxRecord(const vmm::SnapshotSource& snapshot)>;
vmm::SandboxRecord WithSource(const Context& ctx, ClientState& client, const std::string& snapshot,
                              const SourceUser& use);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_SNAPSHOT_SOURCE_H_
