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
using namespace std::string_view_literals;

constexpr std::string_view kLeafDomain = "msb-file-merkle-blake3-v1\0leaf\0"sv;
constexpr std::string_view kParentDomain = "msb-file-merkle-blake3-v1\0parent\0"sv;
constexpr std::string_view kRootDomain = "msb-file-merkle-blake3-v1\0root\0"sv;

constexpr std::uint64_t kLeavesPerRegion = disk::kRegionBytes / kMerkleLeafBytes;
constexpr std::size_t kLeavesPerCheck = (1 << 20) / kMerkleLeafBytes;
static_assert(disk::kBlockBytes == kMerkleLeafBytes, "a block of a scan must be a leaf");
static_assert(kLeafDomain.size() <= disk::kRegionHeadroom, "the domain must fit before a leaf");

// Hashes the leaf at data. The domain is written in front of it for the duration of the call: if
// both are in one piece, BLAKE3 hashes as many of its chunks in parallel as the processor can,
// which is twice as fast.
MerkleHash HashLeafInPlace(std::byte* data) {
  std::byte* start = data - kLeafDomain.size();
  std::array<std::byte, kLeafDomain.size()> saved;
  std::memcpy(saved.data(), start, saved.size());
  std::memcpy(start, kLeafDomain.data(), kLeafDomain.size());
  const MerkleHash hash = Blake3().Add(start, kLeafDomain.size() + kMerkleLeafBytes).Finish();
  std::memcpy(start, saved.data(), saved.size());
  return hash;
}

// Hashes the last leaf of a file, padded with zeros.
MerkleHash HashShortLeaf(std::span<const std::byte> data) {
  std::vector<std::byte> padded(kLeafDomain.size() + kMerkleLeafBytes);
  std::memcpy(padded.data(), kLeafDomain.data(), kLeafDomain.size());
  std::copy(data.begin(), data.end(), padded.begin() + kLeafDomain.size());
  return Blake3().Add(padded.data(), padded.size()).Finish();
}

MerkleHash HashParent(const MerkleHash& left, const MerkleHash& right) {
  return Blake3().Add(kParentDomain).Add(left).Add(right).Finish();
}

// Combines the hashes of adjacent nodes, whose number is a power of two, in place. Returns the hash
// of the node above them.
MerkleHash Reduce(std::span<MerkleHash> hashes) {
  for (std::size_t width = hashes.size(); width > 1; width /= 2) {
    for (std::size_t i = 0; i < width / 2; ++i) {
      hashes[i] = HashParent(hashes[2 * i], hashes[2 * i + 1]);
    }
  }
  return hashes[0];
}

}  // namespace

MerkleTree::MerkleTree(std::uint64_t size) : size_(size) {
  const std::uint64_t leaves = size / kMerkleLeafBytes + (size % kMerkleLeafBytes != 0 ? 1 : 0);
  const int height = std::countr_zero(std::bit_ceil(std::max<std::uint64_t>(leaves, 1)));
  zero_.push_back(HashShortLeaf({}));
  for (int level = 0; level < height; ++level) {
    zero_.push_back(HashParent(zero_.back(), zero_.back()));
  }
}

std::uint32_t MerkleTree::LevelOf(std::uint64_t range_bytes) const {
  return std::min(height(),
                  static_cast<std::uint32_t>(std::countr_zero(range_bytes / kMerkleLeafBytes)));
}

MerkleHash MerkleTree::Hash(std::span<std::byte> bytes, std::uint32_t level,
                            const std::function<void()>& check) const {
  std::vector<MerkleHash> hashes(std::size_t{1} << level, zero_[0]);
  for (std::size_t leaf = 0; leaf * kMerkleLeafBytes < bytes.size(); ++leaf) {
    if (check && leaf % kLeavesPerCheck == 0) check();
    const auto rest = bytes.subspan(leaf * kMerkleLeafBytes);
    const auto data = rest.first(std::min<std::size_t>(rest.size(), kMerkleLeafBytes));
    if (disk::IsZero(data)) continue;
    hashes.at(leaf) =
        data.size() < kMerkleLeafBytes ? HashShortLeaf(data) : HashLeafInPlace(data.data());
  }
  return Reduce(hashes);
}

std::string MerkleTree::Root(std::vector<Node> nodes, std::uint32_t level) const {
  // Combine the hashes level by level, in place. A subtree that is not listed is all zeros.
  for (; level < height(); ++level) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < nodes.size(); ++kept) {
      const auto [index, hash] = nodes[i++];
      const bool is_left = index % 2 == 0;
      const bool has_right = is_left && i < nodes.size() && nodes[i].first == index + 1;
      const MerkleHash& left = is_left ? hash : zero_[level];
      const MerkleHash& right = !is_left ? hash : has_right ? nodes[i++].second : zero_[level];
      nodes[kept] = {index / 2, HashParent(left, right)};
    }
    nodes.resize(kept);
  }
  const MerkleHash& top = nodes.empty() ? zero_[height()] : nodes[0].second;
  const MerkleHash root = Blake3()
                              .Add(kRootDomain)
                              .AddLittleEndian(size_)
                              .AddLittleEndian(static_cast<std::uint32_t>(kMerkleLeafBytes))
                              .AddLittleEndian(height())
                              .Add(top)
                              .Finish();
  return "blake3:" + base::Hex(root);
}

void MerkleHasher::Process(const disk::Region& region) {
  std::array<MerkleHash, kLeavesPerRegion> hashes;
  std::fill(hashes.begin(), hashes.end(), tree_.Zero(0));
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
  const std::uint32_t level = tree_.LevelOf(disk::kRegionBytes);
  const MerkleHash hash = Reduce(std::span(hashes).first(std::size_t{1} << level));
  const std::lock_guard lock(mutex_);
  regions_.emplace_back(region.offset / disk::kRegionBytes, hash);
}

std::string MerkleHasher::Finish() {
  std::sort(regions_.begin(), regions_.end());
  return tree_.Root(std::move(regions_), tree_.LevelOf(disk::kRegionBytes));
}

}  // namespace msb::artifact
