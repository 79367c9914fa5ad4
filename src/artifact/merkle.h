// SPDX-License-Identifier: Apache-2.0
//
// Computes the integrity algorithm msb-file-merkle-blake3-v1: a BLAKE3 tree over leaves of 64 KiB,
// for which hashing holes takes almost no time. docs/formats.md gives the definition.

#ifndef MSB_SRC_ARTIFACT_MERKLE_H_
#define MSB_SRC_ARTIFACT_MERKLE_H_

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "src/disk/scan.h"

namespace msb::artifact {

inline constexpr std::uint64_t kMerkleLeafBytes = 64 << 10;

// A MerkleHasher collects the hashes of a file's regions, in any order, and combines them into the
// root. It keeps 40 bytes for each 2 MiB of data, and nothing for holes.
class MerkleHasher : public disk::RegionConsumer {
 public:
  using Hash = std::array<std::uint8_t, 32>;

  // size is the size of the complete file in bytes.
  explicit MerkleHasher(std::uint64_t size);

  void Process(const disk::Region& region) override;

  // Returns "blake3:" and the root in hex. Call once, after the last region.
  std::string Finish();

 private:
  const std::uint64_t size_;
  std::uint32_t height_ = 0;         // Height of the complete tree; 0: a single leaf.
  std::uint32_t region_height_ = 0;  // Height of the subtree of one region.
  std::vector<Hash> zero_;           // Hash of an all-zero subtree, by height.
  std::mutex mutex_;
  // Index and hash of each region; guarded by mutex_.
  std::vector<std::pair<std::uint64_t, Hash>> regions_;
};

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_MERKLE_H_
