// SPDX-License-Identifier: Apache-2.0
//
// Determines the machine settings of a VM of the qemu backend, and whether it has something to
// boot.

#ifndef MSB_SRC_VMM_QEMU_MACHINE_H_
#define MSB_SRC_VMM_QEMU_MACHINE_H_

#include <string>

#include "msb/context.h"
#include "msb/vmm/qemu.h"
#include "src/vmm/directory_record.h"

namespace msb::vmm {

// Returns the settings as they are recorded with a sandbox: without binary, and with absolute
// paths. Throws kInvalidArgument if a path or string contains a NUL or is not UTF-8.
QemuConfig RecordableMachine(const QemuConfig& machine);

// Returns the settings with which a sandbox boots. Each field is taken from the sandbox, else from
// the client that starts it, else from the client that created it; otherwise it has a default.
// binary is taken from the client that starts the sandbox, and may be empty. cpus and memory_mib
// are never 0.
QemuConfig MachineOf(const DirectoryRecord& record, const QemuConfig& client);

// Throws kInvalidConfig if it is certain that QEMU would have nothing to boot: the kernel or initrd
// is absent, a raw file of the disk is empty or has a size that is not a multiple of 512 bytes, or
// there is no kernel, no extra argument and no boot signature on the disk. dir is the open
// directory of the sandbox with this name. Throws kCancelled if ctx ends.
void CheckBootable(const Context& ctx, int dir, const std::string& name,
                   const SandboxRecord& sandbox, const QemuConfig& machine);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_MACHINE_H_
