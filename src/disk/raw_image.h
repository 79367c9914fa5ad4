// A disk that is one file without a format.

#ifndef MSB_SRC_DISK_RAW_IMAGE_H_
#define MSB_SRC_DISK_RAW_IMAGE_H_

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>

#include "src/disk/disk_image.h"

namespace msb::disk {

class RawImage : public DiskImage {
 public:
  explicit RawImage(base::UniqueFd fd);

  std::uint64_t size() const override { return size_; }
  std::optional<Extent> FindData(std::uint64_t offset, std::uint64_t end) const override;
  void Read(std::span<std::byte> bytes, std::uint64_t offset) const override;

 private:
  const base::UniqueFd fd_;
  const std::uint64_t size_;
  // What was found last, and that there is a hole before it from here on. An overlay asks for many
  // short pieces, and the kernel may look through all of a file to say where its data ends.
  mutable std::mutex mutex_;
  mutable std::uint64_t hole_ = 0;  // Guarded by mutex_, as is:
  mutable Extent data_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_RAW_IMAGE_H_
