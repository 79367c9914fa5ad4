// SPDX-License-Identifier: Apache-2.0
//
// The types for disks that all modules and the backend interface share.

#ifndef MSB_DISK_H_
#define MSB_DISK_H_

#include <filesystem>
#include <string>
#include <string_view>

#include "msb/export.h"

namespace msb {

// The formats of disk images that the library reads and writes.
enum class DiskFormat { kRaw, kQcow2 };

// Returns "raw" or "qcow2".
[[nodiscard]] MSB_EXPORT std::string_view ToString(DiskFormat format) noexcept;

// An Image identifies the image that a sandbox was made from.
struct Image {
  std::string ref = {};  // As the user wrote it: "alpine:3.20", or the path of a disk image.
  // The digest that ref had when it was pinned: "sha256:" and 64 hex digits.
  std::string manifest_digest = {};
};

// A Disk describes a file that holds a disk.
struct Disk {
  std::filesystem::path path = {};
  DiskFormat format = DiskFormat::kRaw;
  // The file system inside: "ext4", …, or "unknown" if it was not recognized.
  std::string fstype = {};
};

// A BackingFile describes a file that a qcow2 disk is backed by. Backing files are named after the
// digest of the snapshot or image they belong to, "sha256_HEX.qcow2" or "sha256_HEX.raw", so a
// header that names another file is detected.
struct BackingFile {
  std::string name = {};  // The name in the header of the overlay.
  Disk disk = {};         // Must not be written to.
};

}  // namespace msb

#endif  // MSB_DISK_H_
