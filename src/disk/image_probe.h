// SPDX-License-Identifier: Apache-2.0
//
// Recognizes the format of disk images, and the file system in a raw image.

#ifndef MSB_SRC_DISK_IMAGE_PROBE_H_
#define MSB_SRC_DISK_IMAGE_PROBE_H_

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "msb/disk.h"

namespace msb::disk {

// Returns kQcow2 for a file with the magic number of qcow2, and kRaw for any other file that may be
// a disk. path is for messages. Reads only the header and the L1 table of a qcow2 image.
// Throws kInvalidArgument if the file, or the disk in a qcow2 image, is empty.
// Throws kUnsupportedOperation if it is a qcow2 image with a backing file, persistent bitmaps or a
// feature that ReadQcow2Header refuses; an image in another format: VMDK, VDI, VHDX, VHD, QED, QCOW
// (version 1), Parallels, DMG or ISO 9660; or a file that is compressed with gzip, xz, zstd, bzip2
// or zip. The message has the command that converts or unpacks it.
// Throws kSnapshotIntegrity if the header or the L1 table of a qcow2 image is damaged.
// Throws kCancelled if ctx ends.
DiskFormat ProbeImage(const Context& ctx, int fd, const std::filesystem::path& path);

// The number of bytes at the start of a file that UnpackCommandFor needs.
inline constexpr std::size_t kPackingBytes = 10;
// Returns the command that writes the content of a compressed file to standard output, such as
// "gzip -dc". start is the start of the file. Returns nullopt if it is not that of gzip, xz, zstd,
// bzip2 or zip.
std::optional<std::string_view> UnpackCommandFor(std::string_view start);

// Returns the type of the file system in the raw disk image fd, recognized by its superblock:
// "ext4", "xfs", …, or "unknown".
std::string ProbeFileSystem(int fd);
// Returns kQcow2 if the file begins with the magic number of qcow2, "QFI\xfb", and kRaw otherwise.
DiskFormat ProbeFormat(int fd);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_IMAGE_PROBE_H_
