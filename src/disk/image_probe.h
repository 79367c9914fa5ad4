// SPDX-License-Identifier: Apache-2.0
//
// Recognizes the format of disk images, and the file system in a raw image.

#ifndef MSB_SRC_DISK_IMAGE_PROBE_H_
#define MSB_SRC_DISK_IMAGE_PROBE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "msb/disk.h"

namespace msb::disk {

// Returns kQcow2 for a file with the magic number of qcow2, and kRaw for any other file that may be
// a disk. path is for messages. Reads only the header and the L1 table of a qcow2 image.
// Throws kInvalidArgument if the file, or the disk in a qcow2 image, is empty, or if
// ProblemOfRawSize finds that the file is not a raw disk.
// Throws kUnsupportedOperation if it is a qcow2 image with a backing file, persistent bitmaps or a
// feature that ReadQcow2Header refuses; an image in another format: VMDK, VDI, VHDX, VHD, QED, QCOW
// (version 1), Parallels, DMG, Bochs, cloop, ISO 9660, UDF, LUKS or Android sparse; a tar archive;
// or a file that UnpackCommandFor recognizes as compressed. The message has the command that
// converts, decrypts or unpacks it.
// Throws kSnapshotIntegrity if the header or the L1 table of a qcow2 image is damaged.
// Throws kCancelled if ctx ends.
DiskFormat ProbeImage(const Context& ctx, int fd, const std::filesystem::path& path);

// The number of bytes at the start of a file that the three functions below need at most.
inline constexpr std::size_t kProbeBytes = 66 << 10;
// Returns the command that writes the content of a compressed file to standard output, such as
// "gzip -dc". start is the start of the file. Returns nullopt if it is not that of gzip, compress,
// xz, zstd, bzip2, zip, lz4, 7z, rar, lzip or lzop.
std::optional<std::string_view> UnpackCommandFor(std::string_view start);

// Returns true if a file that begins with start is a tar archive.
bool IsTarStart(std::string_view start);
// Returns a description of the disk image that begins with start, such as "a VMDK image". Returns
// nullopt if start is not that of a format that ProbeImage recognizes, a known file system or a
// disk with a boot signature.
std::optional<std::string> DescribeDiskImage(std::string_view start);

// Returns the reason why a file of size bytes is not a raw disk, such as "its size, 700 bytes, is
// not a multiple of 512", for messages. Returns nullopt if it may be one.
std::optional<std::string> ProblemOfRawSize(std::uint64_t size);

// Returns the type of the file system in the raw disk image fd, recognized by its superblock:
// "ext4", "xfs", …, or "unknown".
std::string ProbeFileSystem(int fd);
// Returns kQcow2 if the file begins with the magic number of qcow2, "QFI\xfb", and kRaw otherwise.
DiskFormat ProbeFormat(int fd);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_IMAGE_PROBE_H_
