// SPDX-License-Identifier: Apache-2.0
//
// Squash: copies the complete disk of a snapshot into a new snapshot without a parent.

#ifndef MSB_SRC_OPS_SQUASH_H_
#define MSB_SRC_OPS_SQUASH_H_

#include <string>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/artifact/store.h"
#include "src/ops/client_state.h"

namespace msb::ops {

artifact::Artifact SquashSnapshot(const Context& ctx, ClientState& client,
                                  const std::string& name_or_path,
                                  const SnapshotCreateOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_SQUASH_H_
