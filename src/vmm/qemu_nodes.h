// SPDX-License-Identifier: Apache-2.0
//
// Describes the disk of a sandbox to QEMU as block nodes (docs/interop/qemu-qmp-ref of QEMU).

#ifndef MSB_SRC_VMM_QEMU_NODES_H_
#define MSB_SRC_VMM_QEMU_NODES_H_

#include <array>
#include <string>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/base/json.h"

namespace msb::vmm {

// The node of the upper that a VM is started with.
inline constexpr const char* kUpperNode = "upper";
// The id of the device by which the guest sees its disk.
inline constexpr const char* kDiskDevice = "root-disk";

// Returns the node of an overlay that was added while the VM runs.
std::string NodeOf(const std::string& overlay);
// Returns the node of the file beneath a node.
std::string FileNodeOf(const std::string& node);

// Describes one file of a disk as two nodes: the file, and its format on top of that. The backing
// file is named here, null for none, so QEMU does not follow the name in the file's header.
std::array<base::Json, 2> NodesOf(const std::string& node, const BackingFile& file, bool read_only,
                                  const base::Json& backing);

// Returns QEMU's arguments for the disk of a sandbox and the device that the guest sees.
std::vector<std::string> DiskArguments(const SandboxRecord& sandbox);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QEMU_NODES_H_
