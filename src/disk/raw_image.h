// A disk that is one file without a format.

#ifndef MSB_SRC_DISK_RAW_IMAGE_H_
#define MSB_SRC_DISK_RAW_IMAGE_H_

#include "src/disk/disk_image.h"

namespace msb::disk {

class RawImage : public DiskImage {
 public:
  explicit RawImage(base::UniqueFd fd);

  std::uint64_t size() const override { return size_; }
  std::optional<Extent> NextData(std::uint64_t offset) const override;
  void Read(std::span<std::byte> bytes, std::uint64_t offset) const override;

 private:
  const base::UniqueFd fd_;
  const std::uint64_t size_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_RAW_IMAGE_H_
