// SPDX-License-Identifier: Apache-2.0
//
// Presents the disk of a guest as the guest sees it, regardless of the files it is stored in.

#ifndef MSB_SRC_DISK_DISK_IMAGE_H_
#define MSB_SRC_DISK_DISK_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "msb/disk.h"
#include "src/base/file.h"
#include "src/disk/extents.h"

namespace msb::disk {

// Adjacent data is merged into one extent until that has this many bytes. Longer extents would make
// their reader wait until all tables are read, and notice a cancellation only then.
inline constexpr std::uint64_t kLongExtent = 256 << 20;

// A DiskImage represents the disk of a guest. Several threads may call its const functions at the
// same time.
class DiskImage {
 public:
  DiskImage() = default;
  DiskImage(const DiskImage&) = delete;
  DiskImage& operator=(const DiskImage&) = delete;
  virtual ~DiskImage() = default;

  // Returns the size that the guest sees, in bytes.
  virtual std::uint64_t size() const = 0;
  // Returns the first extent of data that ends after offset, without the part of it that is before
  // offset, or nullopt if only zeros follow. All bytes between extents read as zeros. Two extents
  // may touch each other only if the first one has at least kLongExtent bytes.
  std::optional<Extent> NextData(std::uint64_t offset) const;
  // Works like NextData, but looks only at the part of the disk before end, and any two extents may
  // touch each other. Must ask a backing file for each range only once, so that the work grows
  // linearly with the number of files.
  virtual std::optional<Extent> FindData(std::uint64_t offset, std::uint64_t end) const = 0;
  // Reads bytes.size() bytes at offset, whether they are data or zeros. They must be within size().
  virtual void Read(std::span<std::byte> bytes, std::uint64_t offset) const = 0;
};

// An ImageFile is one file of a disk.
struct ImageFile {
  base::UniqueFd fd = {};
  DiskFormat format = DiskFormat::kRaw;
  // The name without directories, as it is recorded in the overlay that is backed by this file.
  std::string name = {};
};

// Opens a disk of one or more files, the head first, each backed by the next. A qcow2 file must
// name exactly the next file as its backing file, and the last file must not name a backing file.
// The names are compared, but never opened. ctx limits this call and the use of the image.
// Throws kSnapshotIntegrity if a file is damaged, or the names or formats do not match.
// Throws kUnsupportedOperation if a file needs a feature that this library does not support, and
// for a disk of more than 256 files or of none.
// Throws kCancelled if ctx ends; so do FindData and Read of the image.
std::unique_ptr<DiskImage> OpenImage(const Context& ctx, std::vector<ImageFile> files);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_DISK_IMAGE_H_
