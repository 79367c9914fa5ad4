// SPDX-License-Identifier: Apache-2.0

#include "src/ops/exec.h"

#include "src/base/throw.h"

namespace msb::ops {

ExecResult ExecInSandbox(const Context& ctx, const ClientState& client, const std::string& sandbox,
                         const std::vector<std::string>& command, const ExecOptions& options) {
  return client.backend->Exec(ctx, sandbox, command, options);
}

}  // namespace msb::ops
