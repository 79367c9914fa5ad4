// A guest's disk as the guest sees it, whatever files it is in.

#ifndef MSB_SRC_DISK_DISK_IMAGE_H_
#define MSB_SRC_DISK_DISK_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/base/file.h"
#include "src/disk/extents.h"

namespace msb::disk {

// Its const functions may be called from several threads at a time.
class DiskImage {
 public:
  DiskImage() = default;
  DiskImage(const DiskImage&) = delete;
  DiskImage& operator=(const DiskImage&) = delete;
  virtual ~DiskImage() = default;

  // Bytes that the guest sees.
  virtual std::uint64_t size() const = 0;
  // The first extent of data that ends after offset, without what of it is before offset. All
  // between extents reads as zeros. Nothing: zeros up to the end. Extents only touch if they are
  // long.
  std::optional<Extent> NextData(std::uint64_t offset) const { return FindData(offset, size()); }
  // The same of what is before end, without looking any further.
  virtual std::optional<Extent> FindData(std::uint64_t offset, std::uint64_t end) const = 0;
  // Reads bytes.size() bytes at offset, data or not; they must be within size().
  virtual void Read(std::span<std::byte> bytes, std::uint64_t offset) const = 0;
};

// One file of a disk.
struct ImageFile {
  base::UniqueFd fd = {};
  DiskFormat format = DiskFormat::kRaw;
  std::string name = {};  // Without directories: what the file above names as its backing file.
};

// Opens a disk of one or more files, its head first, each standing on the next. A qcow2 file must
// name exactly the next one as its backing file, and the last must name none; names are compared,
// never opened. kSnapshotIntegrity: a file is damaged, or the names do not match.
// kUnsupportedOperation: a feature that this library does not read.
std::unique_ptr<DiskImage> OpenImage(std::vector<ImageFile> files);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_DISK_IMAGE_H_
