// Whether a qcow2 file is what QEMU would go on writing to without damage.

#ifndef MSB_SRC_DISK_QCOW2_CHECK_H_
#define MSB_SRC_DISK_QCOW2_CHECK_H_

#include <string_view>

#include "msb/context.h"
#include "src/disk/qcow2_header.h"

namespace msb::disk {

// Checks all tables of an open qcow2 file, and returns its header. As 'qemu-img check' does, it
// takes clusters that are lost, but none that is used twice or counted too low. What the data
// clusters hold is not read. name is what messages call the file.
// kSnapshotIntegrity: damaged. kUnsupportedOperation: as ReadQcow2Header, or it has persistent
// bitmaps, or more than 2^31 clusters.
Qcow2Header CheckQcow2(const Context& ctx, int fd, std::string_view name);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_CHECK_H_
