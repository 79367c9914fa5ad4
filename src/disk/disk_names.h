// SPDX-License-Identifier: Apache-2.0
//
// Determines the file names of disks, in artifacts, in sandboxes and in the cache.

#ifndef MSB_SRC_DISK_DISK_NAMES_H_
#define MSB_SRC_DISK_DISK_NAMES_H_

#include <optional>
#include <string>
#include <string_view>

#include "msb/disk.h"

namespace msb::disk {

// The name of a raw upper, in artifacts and in the sandboxes of the runtimes.
inline constexpr std::string_view kRawUpperFile = "upper.ext4";
// The name of a qcow2 upper, in artifacts and in sandboxes of the backends local and qemu.
inline constexpr std::string_view kQcow2UpperFile = "upper.qcow2";

// Returns the file name of an upper in this format.
std::string UpperFileName(DiskFormat format);

// Returns the name of a disk that others are backed by: "sha256_HEX.raw" or "sha256_HEX.qcow2",
// where digest, of its snapshot or image, is "sha256:HEX" and has been checked. The disk has this
// name in the cache and in sandboxes, and as the backing file in the headers of overlays.
std::string DiskFileName(std::string_view digest, DiskFormat format);

// Returns the format in which the disk of the snapshot or image with this digest has this file
// name, or nullopt if the name is another file's.
std::optional<DiskFormat> FormatOfDiskFile(std::string_view name, std::string_view digest);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_DISK_NAMES_H_
