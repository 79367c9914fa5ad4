// SPDX-License-Identifier: Apache-2.0
//
// Exec: runs a command in the guest of a sandbox.

#ifndef MSB_SRC_OPS_EXEC_H_
#define MSB_SRC_OPS_EXEC_H_

#include <string>
#include <vector>

#include "msb/context.h"
#include "msb/exec.h"
#include "src/ops/client_state.h"

namespace msb::ops {

ExecResult ExecInSandbox(const Context& ctx, const ClientState& client, const std::string& sandbox,
                         const std::vector<std::string>& command, const ExecOptions& options);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_EXEC_H_
