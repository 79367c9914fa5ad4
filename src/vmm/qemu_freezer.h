// SPDX-License-Identifier: Apache-2.0
//
// A QemuFreezer freezes the file systems of a guest for the moment in which its disk is exchanged.

#ifndef MSB_SRC_VMM_QEMU_FREEZER_H_
#define MSB_SRC_VMM_QEMU_FREEZER_H_

#include <chrono>
#include <cstdint>
#include <optional>

#include "msb/context.h"
#include "src/base/last_words.h"
#include "src/vmm/live_disk.h"
#include "src/vmm/qemu_agent.h"

namespace msb::vmm {

// The time limit for freezing, regardless of what the agent sends. The lock of the sandbox is held
// meanwhile.
inline constexpr auto kFreezeLimit = std::chrono::seconds(30);

class QemuFreezer {
 public:
  // warn receives the reason if kAuto does not freeze, and the failures of Thaw.
  QemuFreezer(const GuestAddress& guest, const Warn& warn,
              std::chrono::milliseconds freeze_limit = kFreezeLimit)
      : guest_(guest), warn_(warn), freeze_limit_(freeze_limit) {}
  QemuFreezer(const QemuFreezer&) = delete;
  QemuFreezer& operator=(const QemuFreezer&) = delete;
  // Thaws the file systems.
  ~QemuFreezer() { Thaw(); }

  // Freezes the guest's file systems as level demands. Returns whether they are frozen. If this
  // process ends before Thaw, another process thaws them.
  // Throws kUnsupportedOperation if level is kFilesystemConsistent and they cannot be frozen within
  // kFreezeLimit.
  // Throws kIO if the VM has ended or, if level is kFilesystemConsistent, the system lacks a
  // resource.
  // Throws kCancelled if ctx ends first. Does not wait for the agent then: another process thaws
  // what it may have frozen.
  bool Freeze(const Context& ctx, LiveSnapshot level);
  // Thaws the file systems. Returns true if all of them were frozen until then, and false if
  // something else had thawed some before or if this is not known, because thawing failed. In that
  // case, another process tries again.
  bool Thaw() noexcept;

 private:
  void FreezeAll(const Context& ctx, LiveSnapshot level);
  void ThawAfterRefusal() noexcept;
  void EndSession() noexcept;

  const GuestAddress& guest_;
  const Warn& warn_;
  const std::chrono::milliseconds freeze_limit_;
  std::uint64_t frozen_ = 0;  // The number of file systems that Freeze has frozen.
  std::optional<AgentSession> session_;
  std::optional<base::LastWords> guard_;  // Set while file systems may be frozen.
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_FREEZER_H_
