// SPDX-License-Identifier: Apache-2.0
//
// Changes ranges of a sparse file.

#ifndef MSB_SRC_DISK_SPARSE_WRITE_H_
#define MSB_SRC_DISK_SPARSE_WRITE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "src/disk/extents.h"

namespace msb::disk {

// Blocks of this many zeros become holes. It is the smallest unit that common file systems
// allocate.
inline constexpr std::uint64_t kHoleBytes = 4096;

// Writes bytes at offset, except for blocks of kHoleBytes that are all zeros: holes of the file
// stay there. A block begins at a multiple of kHoleBytes in the file.
void WriteSparse(int fd, std::span<const std::byte> bytes, std::uint64_t offset);

// Makes a range of target share the blocks of the same range of source (FICLONERANGE,
// ioctl_ficlonerange(2)). Returns false, with nothing changed, if the file system cannot do that.
bool ShareRange(int source, int target, const Extent& range);

// Makes a range read as zeros: as a hole if the file system can do that (fallocate(2)), and
// otherwise by writing zeros.
void ClearRange(int fd, const Extent& range);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_SPARSE_WRITE_H_
