// SPDX-License-Identifier: Apache-2.0
//
// QemuConfig holds the machine settings of the qemu backend.

#ifndef MSB_VMM_QEMU_H_
#define MSB_VMM_QEMU_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "msb/export.h"

namespace msb {

// A QemuConfig describes a virtual machine of the qemu backend: a PC whose disk is on virtio-blk
// (/dev/vda in Linux), and whose first serial port is written to console.log in the sandbox's
// directory. QEMU uses KVM if a test guest runs under KVM, and emulation otherwise. The test is
// made once for each boot of the host, and its result is kept in the cache.
//
// A QemuConfig is given for a client (Config::qemu) or for one sandbox (WithQemu). When a sandbox
// is created, both configurations are recorded with absolute paths, so that any client can start
// the sandbox. Each field is taken from the first of these configurations that sets it to a value
// that is neither empty nor 0:
//   1. WithQemu of the sandbox, and WithMemory and WithCPUs, which take precedence over it,
//   2. Config::qemu of the client that starts the sandbox,
//   3. Config::qemu of the client that created the sandbox.
// Fields do not affect each other, so if you replace a recorded kernel, also set initrd and append
// if they depend on it.
//
// The record (sandbox.json) is trusted as far as the home directory is: a user who can write to it
// can make QEMU run with any arguments. Do not start a sandbox whose directory comes from an
// untrusted source; import snapshots instead, which carry no machine settings.
//
// A sandbox is kStopped after its guest powered off, and kCrashed after its guest panicked or was
// reset, or after QEMU failed. A panic is detected if the guest has a pvpanic driver, or if it
// reboots on panic ("panic=-1" on Linux's command line, which also covers an init that exits). The
// VM is never restarted. An orderly reboot cannot be distinguished from a reboot after a panic, so
// it ends in kCrashed too. A guest that hangs is not detected, nor is a panic of a guest that
// neither has a pvpanic driver nor reboots on panic.
//
// CreateSandbox and StartSandbox throw kInvalidConfig if neither kernel nor extra_arguments is set
// and the first sector of the disk has no boot signature (0x55 0xAA at bytes 510 and 511), because
// the VM would have nothing to boot. They also throw kInvalidConfig if the size of a raw image is
// not a multiple of 512 bytes; for an image file, CreateSandbox throws kInvalidArgument (see
// WithImage). In all other cases, if SeaBIOS finds nothing to boot, it resets the VM within about
// two seconds, and the sandbox is kCrashed.
struct QemuConfig {
  // The path of the QEMU program. It is not recorded, and must be empty in WithQemu. Default:
  // qemu-system-x86_64 on the PATH.
  std::filesystem::path binary = {};
  // The kernel file for a direct kernel boot. Default: none; if no kernel is recorded either, the
  // disk must be bootable.
  std::filesystem::path kernel = {};
  // The initial RAM disk for the kernel. Default: none.
  std::filesystem::path initrd = {};
  // The kernel's command line. Default: empty.
  std::string append = {};
  // Memory in MiB of sandboxes created without WithMemory. Default: 0, which means the recorded
  // value, or 512 if there is none.
  std::uint32_t memory_mib = 0;
  // Number of virtual CPUs of sandboxes created without WithCPUs. Default: 0, which means the
  // recorded value, or 1 if there is none.
  std::uint32_t cpus = 0;
  // Arguments that are appended to QEMU's command line. With "-S" the guest does not start until
  // another program continues it. Default: none.
  std::vector<std::string> extra_arguments = {};
};

}  // namespace msb

#endif  // MSB_VMM_QEMU_H_
