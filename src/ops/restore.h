// SPDX-License-Identifier: Apache-2.0
//
// Restore: replaces the disk of a sandbox by one that is made from a snapshot.

#ifndef MSB_SRC_OPS_RESTORE_H_
#define MSB_SRC_OPS_RESTORE_H_

#include <string>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/ops/client_state.h"

namespace msb::ops {

void RestoreSandbox(const Context& ctx, ClientState& client, const std::string& sandbox,
                    const std::string& name_or_path);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_RESTORE_H_
