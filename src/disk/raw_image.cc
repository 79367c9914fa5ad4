#include "src/disk/raw_image.h"

namespace msb::disk {

RawImage::RawImage(base::UniqueFd fd) : fd_(std::move(fd)), size_(base::StampOf(fd_.get()).size) {}

std::optional<Extent> RawImage::NextData(std::uint64_t offset) const {
  if (offset >= size_) return std::nullopt;
  return ExtentReader(fd_.get(), size_, offset).Next();
}

void RawImage::Read(std::span<std::byte> bytes, std::uint64_t offset) const {
  base::ReadExactly(fd_.get(), bytes.data(), bytes.size(), offset);
}

}  // namespace msb::disk
