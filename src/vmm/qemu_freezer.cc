// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_freezer.h"

#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <tuple>

#include "src/base/duration.h"
#include "src/base/throw.h"
#include "src/base/unix_socket.h"
#include "src/vmm/qmp_client.h"

namespace msb::vmm {
namespace {

using base::Throw;

// How long the agent may take to answer before the file systems are frozen.
constexpr auto kAutoTimeout = std::chrono::seconds(2);
constexpr auto kDemandedTimeout = std::chrono::seconds(10);
constexpr auto kThawLimit = std::chrono::seconds(30);
constexpr auto kRefusedThawLimit = std::chrono::seconds(2);

}  // namespace

void QemuFreezer::FreezeAll(const Context& ctx, LiveSnapshot level) {
  session_.emplace(
      OpenAgent(ctx, guest_, level == LiveSnapshot::kAuto ? kAutoTimeout : kDemandedTimeout));
  guard_.emplace(session_->ThawMessage());
  try {
    frozen_ = (*session_)->Freeze(ctx.WithTimeout(freeze_limit_));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled) throw;
    ctx.Check();
    Throw(ErrorKind::kIO,
          "the guest agent of sandbox '{}' did not freeze the file systems within {}; look at its "
          "log in the guest, and restart it",
          guest_.sandbox, base::FormatDuration(freeze_limit_));
  }
  if (frozen_ > 0) return;
  throw AgentRefusal(
      ErrorKind::kUnsupportedOperation,
      fmt::format("the guest agent of sandbox '{}' found no mounted file system to freeze; mount "
                  "the disk in the guest",
                  guest_.sandbox),
      "");
}

bool QemuFreezer::Freeze(const Context& ctx, LiveSnapshot level) {
  if (level == LiveSnapshot::kCrashConsistent) return false;
  try {
    FreezeAll(ctx, level);
    return true;
  } catch (const Error& e) {
    // An agent that did not answer may still be freezing.
    if (dynamic_cast<const AgentRefusal*>(&e) != nullptr) ThawAfterRefusal();
    EndSession();
    if (e.kind() == ErrorKind::kCancelled) throw;
    if (!base::IsServedAt(guest_.dir, kQmpSocketFile)) throw;
    if (level == LiveSnapshot::kFilesystemConsistent) {
      if (e.os_error() != 0) throw;
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
  if (!guard_) return false;
  bool were_frozen = false;
  const auto thaw = [&] {
    try {
      were_frozen = (*session_)->Thaw(Context::Background().WithTimeout(kThawLimit)) >= frozen_;
    } catch (const Error& e) {
      Throw(e.kind(), "cannot thaw the file systems of sandbox '{}': {}", guest_.sandbox, e.what());
    }
  };
  if (TryStep(thaw, warn_)) guard_.reset();
  EndSession();
  return were_frozen;
}

// An agent that may not freeze file systems may not thaw them either, which is no reason to warn.
void QemuFreezer::ThawAfterRefusal() noexcept {
  try {
    std::ignore = (*session_)->Thaw(Context::Background().WithTimeout(kRefusedThawLimit));
    guard_.reset();
  } catch (const AgentRefusal& e) {
    if (e.kind() == ErrorKind::kUnsupportedOperation) guard_.reset();
  } catch (const std::exception&) {
    // The agent has ended since, or does not answer.
  }
}

// Ends the session. If file systems may be frozen, lets another process thaw them, which keeps
// other clients out until the agent has answered.
void QemuFreezer::EndSession() noexcept {
  if (guard_) {
    guard_->SendNow();
    session_->LeaveLocked();
  }
  guard_.reset();
  session_.reset();
}

}  // namespace msb::vmm
