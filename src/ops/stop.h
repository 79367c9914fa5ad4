// SPDX-License-Identifier: Apache-2.0
//
// Stop: ends the boot of a sandbox, or waits for its end.

#ifndef MSB_SRC_OPS_STOP_H_
#define MSB_SRC_OPS_STOP_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "msb/context.h"
#include "msb/sandbox.h"
#include "msb/vmm/backend.h"
#include "src/base/fork.h"
#include "src/ops/client_state.h"

namespace msb::ops {

// A boot of a sandbox by this process.
struct Boot {
  Boot(const vmm::SandboxRecord& record, bool outlives_process)
      : name(record.name),
        created_at(record.created_at),
        started_at(record.started_at),
        detached(outlives_process) {}

  std::string name;
  // Distinguish this sandbox from a later one of the same name, and this boot from a later one.
  std::chrono::system_clock::time_point created_at;
  std::chrono::system_clock::time_point started_at;
  bool detached;
  // The process that must end the sandbox. A process that was forked from it must not.
  std::uint64_t process = base::ForkGeneration();
};

// Stops the sandbox, unless this boot has ended already or was detached.
void EndBoot(const ClientState& client, const Boot& boot);

// Does the same for a destructor: logs failures. Does nothing in a process that was forked from the
// one that booted the sandbox.
void EndOwnBoot(const ClientState& client, const Boot& boot) noexcept;

// Waits until the sandbox that has this name is stopped or has crashed.
SandboxStatus WaitUntilStopped(const Context& ctx, const ClientState& client,
                               const std::string& name);

// Stops the sandbox that has this name.
void StopSandbox(const Context& ctx, const ClientState& client, const std::string& name,
                 const StopConfig& config);

}  // namespace msb::ops

#endif  // MSB_SRC_OPS_STOP_H_
