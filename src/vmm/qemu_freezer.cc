// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_freezer.h"

#include <fmt/format.h>

#include <chrono>

#include "src/base/throw.h"

namespace msb::vmm {
namespace {

using base::Throw;

// How long the agent may take to answer before the file systems are frozen.
constexpr auto kAutoTimeout = std::chrono::seconds(2);
constexpr auto kDemandedTimeout = std::chrono::seconds(10);
constexpr auto kThawLimit = std::chrono::seconds(30);

}  // namespace

void QemuFreezer::FreezeAll(const Context& ctx, LiveSnapshot level) {
  session_.emplace(
      OpenAgent(ctx, guest_, level == LiveSnapshot::kAuto ? kAutoTimeout : kDemandedTimeout));
  guard_.emplace(session_->ThawMessage());
  if ((*session_)->Freeze(ctx) > 0) return;
  Throw(ErrorKind::kUnsupportedOperation,
        "the guest agent of sandbox '{}' found no mounted file system to freeze; mount the disk in "
        "the guest",
        guest_.sandbox);
}

bool QemuFreezer::Freeze(const Context& ctx, LiveSnapshot level) {
  if (level == LiveSnapshot::kCrashConsistent) return false;
  try {
    FreezeAll(ctx, level);
    return true;
  } catch (const Error& e) {
    Thaw();
    if (e.kind() == ErrorKind::kCancelled) throw;
    if (level == LiveSnapshot::kFilesystemConsistent) {
      Throw(ErrorKind::kUnsupportedOperation,
            "cannot freeze the file systems of sandbox '{}' for a filesystem-consistent snapshot: "
            "{}; or permit a crash-consistent one (LiveSnapshot::kAuto)",
            guest_.sandbox, e.what());
    }
    warn_(fmt::format("the snapshot of sandbox '{}' is only crash-consistent: {}", guest_.sandbox,
                      e.what()));
    return false;
  }
}

bool QemuFreezer::Thaw() noexcept {
  bool were_frozen = true;
  const auto thaw = [&] {
    try {
      were_frozen = (*session_)->Thaw(Context::Background().WithTimeout(kThawLimit)) > 0;
    } catch (const Error& e) {
      Throw(e.kind(), "cannot thaw the file systems of sandbox '{}': {}", guest_.sandbox, e.what());
    }
  };
  // Freeze thaws if it fails, but it may not have reached the agent.
  if (guard_ && !TryStep(thaw, warn_)) guard_->SendNow();
  guard_.reset();
  session_.reset();
  return were_frozen;
}

}  // namespace msb::vmm
