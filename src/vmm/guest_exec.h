// SPDX-License-Identifier: Apache-2.0
//
// Runs a command in a guest through its guest agent.

#ifndef MSB_SRC_VMM_GUEST_EXEC_H_
#define MSB_SRC_VMM_GUEST_EXEC_H_

#include <chrono>
#include <string>
#include <vector>

#include "msb/context.h"
#include "msb/exec.h"
#include "src/vmm/qemu_agent.h"

namespace msb::vmm {

// How long an agent may take to answer, because its guest may still be booting.
inline constexpr auto kAgentStartTimeout = std::chrono::seconds(30);

// Runs a command and returns when it has ended. Makes room for other clients of the agent
// meanwhile. arguments, environment, directory and user reach the guest as separate strings that no
// shell interprets. If any of the last three is set, a fixed script (guest_script.h) applies them,
// so the guest needs /bin/sh. Throws what Sandbox::Exec throws.
ExecResult ExecInGuest(const Context& ctx, const GuestAddress& guest,
                       const std::vector<std::string>& command, const ExecOptions& options,
                       std::chrono::milliseconds start_timeout = kAgentStartTimeout);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_GUEST_EXEC_H_
