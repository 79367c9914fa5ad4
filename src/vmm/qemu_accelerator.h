// Whether QEMU can use KVM here. That /dev/kvm opens, and even makes a vcpu, does not tell: on some
// machines, virtual ones, a guest then crawls or hangs. So a small guest is run.

#ifndef MSB_SRC_VMM_QEMU_ACCELERATOR_H_
#define MSB_SRC_VMM_QEMU_ACCELERATOR_H_

#include <filesystem>
#include <string>

#include "msb/context.h"

namespace msb::vmm {

// "kvm" or "tcg". The first call for a QEMU binary runs a guest under KVM that goes to long mode,
// writes memory and ends QEMU, which takes a fraction of a second; one that does not end within 4 s
// means tcg. The answer is remembered in cache_dir, until the machine is booted again or the binary
// changes. kCancelled; kIO: the binary cannot be run.
std::string ChooseAccelerator(const Context& ctx, const std::filesystem::path& binary,
                              const std::filesystem::path& cache_dir);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_ACCELERATOR_H_
