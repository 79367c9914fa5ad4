// SPDX-License-Identifier: Apache-2.0
//
// Reads the disk in a raw file.

#ifndef MSB_SRC_DISK_RAW_IMAGE_H_
#define MSB_SRC_DISK_RAW_IMAGE_H_

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>

#include "src/disk/disk_image.h"

namespace msb::disk {

// A RawImage represents the disk in a raw file.
class RawImage : public DiskImage {
 public:
  // FindData throws kCancelled if ctx ends.
  RawImage(Context ctx, base::UniqueFd fd);

  std::uint64_t size() const override { return size_; }
  std::optional<Extent> FindData(std::uint64_t offset, std::uint64_t end) const override;
  void Read(std::span<std::byte> bytes, std::uint64_t offset) const override;

 private:
  const Context ctx_;
  const base::UniqueFd fd_;
  const std::uint64_t size_;
  // The extent that was found last, and the start of the hole before it. They are kept because an
  // overlay asks for many short ranges, and the kernel may have to search the complete file to find
  // the end of an extent.
  mutable std::mutex mutex_;
  mutable std::uint64_t hole_ = 0;  // Guarded by mutex_, as is data_.
  mutable Extent data_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_RAW_IMAGE_H_
