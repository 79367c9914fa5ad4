// msb-file-merkle-blake3-v1: a BLAKE3 tree over 64 KiB leaves, in which a hole costs next to
// nothing. docs/formats.md gives the definition.

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

// Collects the hashes of a file's regions, in any order, then combines them into the root. Keeps
// 40 bytes for each 2 MiB of data, and nothing for holes.
class MerkleHasher : public disk::RegionConsumer {
 public:
  using Hash = std::array<std::uint8_t, 32>;

  // size is the whole file's, in bytes.
  explicit MerkleHasher(std::uint64_t size);

  void Process(const disk::Region& region) override;

  // "blake3:" and the root in hex; call once, after the last region.
  std::string Finish();

 private:
  const std::uint64_t size_;
  std::uint32_t height_ = 0;         // Of the whole tree; 0: a single leaf.
  std::uint32_t region_height_ = 0;  // Of the subtree of one region.
  std::vector<Hash> zero_;           // Hash of an all-zero subtree, by height.
  std::mutex mutex_;
  std::vector<std::pair<std::uint64_t, Hash>> regions_;  // By index; guarded by mutex_.
};

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_MERKLE_H_
