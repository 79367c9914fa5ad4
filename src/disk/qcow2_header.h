// What the header of a qcow2 file says of other files.

#ifndef MSB_SRC_DISK_QCOW2_HEADER_H_
#define MSB_SRC_DISK_QCOW2_HEADER_H_

#include <string_view>

namespace msb::disk {

// Throws kSnapshotIntegrity if the open file is a qcow2 file that has its data elsewhere, or names
// a backing file outside its own directory: whoever opens it would let its guest read that. name is
// what to call it.
void CheckNamesNoOther(int fd, std::string_view name);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_HEADER_H_
