// SPDX-License-Identifier: Apache-2.0
//
// Boot: creates a sandbox from an image or a snapshot, and starts it.

#ifndef MSB_SRC_OPS_BOOT_H_
#define MSB_SRC_OPS_BOOT_H_

#include <string>

#include "msb/context.h"
#include "msb/sandbox.h"
#include "msb/vmm/backend.h"
#include "src/ops/client_state.h"

namespace msb::ops {

vmm::SandboxRecord BootSandbox(const Context& ctx, ClientState& client, const std::string& name,
                               const SandboxConfig& config);

// Throws kSandboxNotFound for a name that no sandbox can have: one that begins with '.', or that is
// not a plain file name. After this check, a backend may use the name in a path.
void CheckSandboxName(const std::string& name);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_BOOT_H_
