// SPDX-License-Identifier: Apache-2.0
//
// Provides the guest with which qemu_accelerator.h tests an accelerator: firmware that quickly
// performs the same steps as a booting kernel.

#ifndef MSB_SRC_VMM_QEMU_PROBE_GUEST_H_
#define MSB_SRC_VMM_QEMU_PROBE_GUEST_H_

#include <string>
#include <string_view>

namespace msb::vmm {

// Returns a firmware image for QEMU's machine "pc". The guest enters long mode, fills 32 MiB of
// memory five times, writes kProbeGuestMessage to the debug console (port 0xe9) and then 16 to port
// 0xf4, which the device isa-debug-exit turns into QEMU's exit status 33. Returns an empty string
// if this library was not built for x86-64.
std::string ProbeGuest();

inline constexpr std::string_view kProbeGuestMessage = "msb: the guest ran\n";

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_PROBE_GUEST_H_
