// SPDX-License-Identifier: Apache-2.0
//
// Writes disks: an empty overlay, or the complete disk in one file.

#ifndef MSB_SRC_DISK_IMAGE_WRITER_H_
#define MSB_SRC_DISK_IMAGE_WRITER_H_

#include <cstdint>
#include <string>

#include "msb/context.h"
#include "msb/disk.h"
#include "src/disk/disk_image.h"

namespace msb::disk {

// An Overlay describes an overlay to write.
struct Overlay {
  std::uint64_t virtual_size = 0;  // Bytes, a multiple of 512.
  std::string backing_file = {};   // File name without directories.
  DiskFormat backing_format = DiskFormat::kRaw;
};

// Writes a qcow2 file (version 3, clusters of 64 KiB) without data of its own to the empty file fd,
// and flushes it. Takes constant time regardless of virtual_size, since the L1 table (8 bytes for
// each 512 MiB) is a hole.
// Throws kInvalidArgument if virtual_size is too large or not a multiple of 512, or if backing_file
// is not a valid name (IsBackingName).
void WriteOverlay(int fd, const Overlay& overlay);

// Writes the complete disk, as the guest sees it, to the empty file fd, as a sparse raw file or as
// a qcow2 file without a backing file, and flushes the file. Leaves out zeros: blocks of 4 KiB in a
// raw file, clusters in a qcow2 file. Progress phase "flatten".
// Throws kIO if the file cannot be written. If the file system is full, the file is empty then, and
// the message reports how much space the disk needs at most.
// Throws kUnsupportedOperation if the disk is too large for qcow2.
void WriteFlat(const Context& ctx, const DiskImage& image, DiskFormat format, int fd);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_IMAGE_WRITER_H_
