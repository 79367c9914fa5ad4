// SPDX-License-Identifier: Apache-2.0

#include "src/disk/content_sha256.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "src/base/fork.h"

namespace msb::disk {

void ContentSha256::Commit(const Region& region) {
  for (const Extent& extent : region.data) {
    AddZerosUpTo(extent.offset);
    hash_.Update(region.bytes.data() + (extent.offset - region.offset), extent.length);
    position_ = extent.end();
  }
}

std::string ContentSha256::Finish() {
  AddZerosUpTo(size_);
  return hash_.Finish();
}

void ContentSha256::AddZerosUpTo(std::uint64_t end) {
  static constinit base::Lazy<std::vector<std::byte>> lazy_zeros;
  const std::vector<std::byte>& zeros =
      lazy_zeros.Get([] { return std::vector<std::byte>(1 << 20); });
  while (position_ < end) {
    ctx_.Check();
    const std::size_t step = std::min<std::uint64_t>(zeros.size(), end - position_);
    hash_.Update(zeros.data(), step);
    position_ += step;
  }
}

}  // namespace msb::disk
