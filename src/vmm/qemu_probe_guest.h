// The guest that qemu_accelerator.h tries an accelerator with: firmware that does, in a moment,
// what a kernel does that boots.

#ifndef MSB_SRC_VMM_QEMU_PROBE_GUEST_H_
#define MSB_SRC_VMM_QEMU_PROBE_GUEST_H_

#include <string>
#include <string_view>

namespace msb::vmm {

// A firmware image for QEMU's machine "pc". The guest goes to long mode, writes all over its
// memory, writes kProbeGuestMessage to the debug console (port 0xe9) and then 16 to port 0xf4,
// where the device isa-debug-exit makes it QEMU's exit status 33. Empty if this library was built
// for a machine that cannot run it.
std::string ProbeGuest();

inline constexpr std::string_view kProbeGuestMessage = "msb: the guest ran\n";

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_PROBE_GUEST_H_
