// SPDX-License-Identifier: Apache-2.0
//
// Determines whether QEMU can use KVM on this machine. A process that can open /dev/kvm, and even
// create a vCPU, may still be unable to use KVM: on some virtual machines, guests then run
// extremely slowly or hang. Therefore a small test guest is run.

#ifndef MSB_SRC_VMM_QEMU_ACCELERATOR_H_
#define MSB_SRC_VMM_QEMU_ACCELERATOR_H_

#include <filesystem>
#include <string>

#include "msb/context.h"

namespace msb::vmm {

// Returns the accelerator for QEMU, "kvm" or "tcg". The first call for a QEMU binary runs a test
// guest under KVM, which enters long mode, writes memory and ends QEMU. This takes a fraction of a
// second. If the guest does not end within 4 s, the result is "tcg". The result for the binary that
// was tested last is kept in cache_dir until the machine is rebooted or the binary changes. Returns
// "tcg" without running a guest if this process may not read and write device, or if this library
// was not built for x86-64.
// Throws kCancelled if ctx ends first.
// Throws kInvalidConfig if the binary cannot be run.
std::string ChooseAccelerator(const Context& ctx, const std::filesystem::path& binary,
                              const std::filesystem::path& cache_dir,
                              const std::filesystem::path& device = "/dev/kvm");

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_ACCELERATOR_H_
