// SPDX-License-Identifier: Apache-2.0

#include "src/disk/raw_image.h"

#include <algorithm>
#include <utility>

namespace msb::disk {

RawImage::RawImage(Context ctx, base::UniqueFd fd)
    : ctx_(std::move(ctx)), fd_(std::move(fd)), size_(base::StampOf(fd_.get()).size) {}

std::optional<Extent> RawImage::FindData(std::uint64_t offset, std::uint64_t end) const {
  end = std::min(end, size_);
  if (offset >= end) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (offset < hole_ || offset >= data_.end()) {
    const auto found = ExtentReader(ctx_, fd_.get(), size_, offset).Next();
    hole_ = offset;
    data_ = found.value_or(Extent{size_, 0});
  }
  const std::uint64_t begin = std::max(offset, data_.offset);
  if (begin >= end) return std::nullopt;
  return Extent{begin, std::min(data_.end(), end) - begin};
}

void RawImage::Read(std::span<std::byte> bytes, std::uint64_t offset) const {
  base::ReadExactly(fd_.get(), bytes.data(), bytes.size(), offset);
}

}  // namespace msb::disk
