// SPDX-License-Identifier: Apache-2.0
//
// Checks that QEMU can continue to write to a qcow2 file without damaging it.

#ifndef MSB_SRC_DISK_QCOW2_CHECK_H_
#define MSB_SRC_DISK_QCOW2_CHECK_H_

#include <string_view>

#include "msb/context.h"
#include "src/disk/qcow2_header.h"

namespace msb::disk {

// Checks all tables of an open qcow2 file, and returns its header. Like 'qemu-img check', accepts
// leaked clusters, but refuses a cluster that is used twice or whose refcount is too low. Does not
// read the content of data clusters. name is the file's name in messages.
// Throws kSnapshotIntegrity if the file is damaged.
// Throws kUnsupportedOperation as ReadQcow2Header does, and if the file has persistent bitmaps or
// about 2^31 clusters or more.
// Throws kCancelled if ctx ends.
Qcow2Header CheckQcow2(const Context& ctx, int fd, std::string_view name);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_CHECK_H_
