// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/merkle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <string_view>

#include "src/base/blake3.h"
#include "src/base/digest.h"

namespace msb::artifact {
namespace {

using base::Blake3;
using Hash = MerkleHasher::Hash;
using namespace std::string_view_literals;

constexpr std::string_view kLeafDomain = "msb-file-merkle-blake3-v1\0leaf\0"sv;
constexpr std::string_view kParentDomain = "msb-file-merkle-blake3-v1\0parent\0"sv;
constexpr std::string_view kRootDomain = "msb-file-merkle-blake3-v1\0root\0"sv;

constexpr std::uint64_t kLeavesPerRegion = disk::kRegionBytes / kMerkleLeafBytes;
static_assert(disk::kBlockBytes == kMerkleLeafBytes, "a block of a scan must be a leaf");
static_assert(kLeafDomain.size() <= disk::kRegionHeadroom, "the domain must fit before a leaf");

// Hashes the leaf at data. The domain is written in front of it for the duration of the call: if
// both are in one piece, BLAKE3 hashes as many of its chunks in parallel as the processor can,
// which is twice as fast.
Hash HashLeafInPlace(std::byte* data) {
  std::byte* start = data - kLeafDomain.size();
  std::array<std::byte, kLeafDomain.size()> saved;
  std::memcpy(saved.data(), start, saved.size());
  std::memcpy(start, kLeafDomain.data(), kLeafDomain.size());
  const Hash hash = Blake3().Add(start, kLeafDomain.size() + kMerkleLeafBytes).Finish();
  std::memcpy(start, saved.data(), saved.size());
  return hash;
}

// Hashes the last leaf of a file, padded with zeros.
Hash HashShortLeaf(std::span<const std::byte> data) {
  std::vector<std::byte> padded(kLeafDomain.size() + kMerkleLeafBytes);
  std::memcpy(padded.data(), kLeafDomain.data(), kLeafDomain.size());
  std::copy(data.begin(), data.end(), padded.begin() + kLeafDomain.size());
  return Blake3().Add(padded.data(), padded.size()).Finish();
}

Hash HashParent(const Hash& left, const Hash& right) {
  return Blake3().Add(kParentDomain).Add(left).Add(right).Finish();
}

}  // namespace

MerkleHasher::MerkleHasher(std::uint64_t size) : size_(size) {
  const std::uint64_t leaves = size / kMerkleLeafBytes + (size % kMerkleLeafBytes != 0 ? 1 : 0);
  height_ = static_cast<std::uint32_t>(
      std::countr_zero(std::bit_ceil(std::max<std::uint64_t>(leaves, 1))));
  region_height_ =
      std::min(height_, static_cast<std::uint32_t>(std::countr_zero(kLeavesPerRegion)));
  zero_.push_back(HashShortLeaf({}));
  while (zero_.size() <= height_) zero_.push_back(HashParent(zero_.back(), zero_.back()));
}

void MerkleHasher::Process(const disk::Region& region) {
  std::array<Hash, kLeavesPerRegion> hashes;
  std::fill(hashes.begin(), hashes.end(), zero_[0]);
  std::uint64_t next_leaf = 0;
  for (const disk::Extent& extent : region.data) {
    std::uint64_t leaf = std::max(next_leaf, (extent.offset - region.offset) / kMerkleLeafBytes);
    for (; leaf * kMerkleLeafBytes < extent.end() - region.offset; ++leaf) {
      const auto bytes = region.bytes.subspan(leaf * kMerkleLeafBytes);
      hashes[leaf] =
          bytes.size() < kMerkleLeafBytes ? HashShortLeaf(bytes) : HashLeafInPlace(bytes.data());
    }
    next_leaf = leaf;
  }
  for (std::size_t width = std::size_t{1} << region_height_; width > 1; width /= 2) {
    for (std::size_t i = 0; i < width / 2; ++i) {
      hashes[i] = HashParent(hashes[2 * i], hashes[2 * i + 1]);
    }
  }
  const std::lock_guard lock(mutex_);
  regions_.emplace_back(region.offset / disk::kRegionBytes, hashes[0]);
}

std::string MerkleHasher::Finish() {
  std::sort(regions_.begin(), regions_.end());
  // Combine the hashes level by level, in place. A subtree that is not listed is all zeros.
  for (std::uint32_t level = region_height_; level < height_; ++level) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < regions_.size(); ++kept) {
      const auto [index, hash] = regions_[i++];
      const bool is_left = index % 2 == 0;
      const bool has_right = is_left && i < regions_.size() && regions_[i].first == index + 1;
      const Hash& left = is_left ? hash : zero_[level];
      const Hash& right = !is_left ? hash : has_right ? regions_[i++].second : zero_[level];
      regions_[kept] = {index / 2, HashParent(left, right)};
    }
    regions_.resize(kept);
  }
  const Hash& top = regions_.empty() ? zero_[height_] : regions_[0].second;
  const Hash root = Blake3()
                        .Add(kRootDomain)
                        .AddLittleEndian(size_)
                        .AddLittleEndian(static_cast<std::uint32_t>(kMerkleLeafBytes))
                        .AddLittleEndian(height_)
                        .Add(top)
                        .Finish();
  return "blake3:" + base::Hex(root);
}

}  // namespace msb::artifact
