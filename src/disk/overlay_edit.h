// SPDX-License-Identifier: Apache-2.0
//
// Examines and edits an overlay without opening its backing files.

#ifndef MSB_SRC_DISK_OVERLAY_EDIT_H_
#define MSB_SRC_DISK_OVERLAY_EDIT_H_

#include <string>
#include <string_view>

namespace msb::disk {

// Returns true if the open qcow2 file has no data of its own, so that its backing file is the same
// disk. name is the file's name in messages. Throws what ReadQcow2Header throws.
bool IsEmptyOverlay(int fd, const std::string& name);

// Names another backing file in the header of a qcow2 file that no process has open for writing,
// and flushes the file. Its format is that of the former one. The name takes the space from the
// former name to the end of the first cluster, which the format reserves for it. fd must be open
// for writing. After a crash, the name may be wrong until this is repeated. Throws what
// ReadQcow2Header throws. Throws kUnsupportedOperation if the file has no backing file, or if the
// name is too long.
void SetBackingFile(int fd, const std::string& name, std::string_view backing_file);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_OVERLAY_EDIT_H_
