// SPDX-License-Identifier: Apache-2.0
//
// Verify: reads a snapshot's files and compares them with its manifest.

#ifndef MSB_SRC_OPS_VERIFY_H_
#define MSB_SRC_OPS_VERIFY_H_

#include "msb/artifact.h"
#include "msb/context.h"
#include "src/artifact/store.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// Verifies the files of an artifact that was opened before.
SnapshotVerifyReport VerifySnapshot(const Context& ctx, ClientState& client,
                                    const artifact::Artifact& artifact);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_VERIFY_H_
