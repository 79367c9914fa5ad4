// SPDX-License-Identifier: Apache-2.0
//
// Create: makes a snapshot of a stopped sandbox.

#ifndef MSB_SRC_OPS_CREATE_H_
#define MSB_SRC_OPS_CREATE_H_

#include <string>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/artifact/store.h"
#include "src/ops/client_state.h"

namespace msb::ops {

artifact::Artifact CreateSnapshot(const Context& ctx, ClientState& client,
                                  const std::string& source_sandbox,
                                  const SnapshotCreateOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_CREATE_H_
