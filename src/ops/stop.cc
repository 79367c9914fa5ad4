// SPDX-License-Identifier: Apache-2.0

#include "src/ops/stop.h"

#include <algorithm>
#include <exception>
#include <thread>

namespace msb::ops {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(20);

}  // namespace

void EndBoot(const ClientState& client, const Boot& boot) {
  if (boot.detached) return;
  try {
    const Context ctx = Context::Background();
    // By now the name may belong to another sandbox, or another program may have started this one.
    const vmm::SandboxRecord now = client.backend->Inspect(ctx, boot.name);
    if (now.created_at != boot.created_at || now.started_at != boot.started_at) return;
    client.backend->Stop(ctx, boot.name, StopConfig{}.timeout);
  } catch (const Error& e) {
    // A sandbox that has been removed is stopped as well.
    if (e.kind() != ErrorKind::kSandboxNotFound) throw;
  }
}

void EndOwnBoot(const ClientState& client, const Boot& boot) noexcept {
  if (boot.process != base::ForkGeneration()) return;
  try {
    EndBoot(client, boot);
  } catch (const std::exception& e) {
    try {
      client.Log(e.what());
    } catch (...) {
      // A destructor cannot report that the log callback failed.
    }
  }
}

SandboxStatus WaitUntilStopped(const Context& ctx, const ClientState& client,
                               const std::string& name) {
  for (;;) {
    ctx.Check();
    const SandboxStatus status = client.backend->Inspect(ctx, name).status;
    if (status == SandboxStatus::kStopped || status == SandboxStatus::kCrashed) return status;
    std::this_thread::sleep_for(kPollInterval);
  }
}

void StopSandbox(const Context& ctx, const ClientState& client, const std::string& name,
                 const StopConfig& config) {
  // Backends count in nanoseconds.
  constexpr auto kLongest =
      std::chrono::floor<std::chrono::milliseconds>(std::chrono::nanoseconds::max());
  const std::chrono::milliseconds timeout = config.timeout;
  client.backend->Stop(ctx, name, std::clamp(timeout, std::chrono::milliseconds::zero(), kLongest));
}

}  // namespace msb::ops
