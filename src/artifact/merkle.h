// SPDX-License-Identifier: Apache-2.0
//
// Computes the integrity algorithm msb-file-merkle-blake3-v1: a BLAKE3 tree over leaves of 64 KiB,
// for which hashing holes takes almost no time. docs/formats.md gives the definition.

#ifndef MSB_SRC_ARTIFACT_MERKLE_H_
#define MSB_SRC_ARTIFACT_MERKLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/disk/scan.h"

namespace msb::artifact {

inline constexpr std::uint64_t kMerkleLeafBytes = 64 << 10;

using MerkleHash = std::array<std::uint8_t, 32>;

// A MerkleTree represents the shape of the tree of one file. Its nodes have levels: a leaf has
// level 0, and a node of level n covers 2^n leaves.
class MerkleTree {
 public:
  // size is the size of the complete file in bytes.
  explicit MerkleTree(std::uint64_t size);

  // Returns the level of the node that covers the complete file.
  std::uint32_t height() const { return static_cast<std::uint32_t>(zero_.size() - 1); }
  // Returns the level of the nodes that cover aligned ranges of this many bytes, which is a power
  // of two of at least one leaf; at most height().
  std::uint32_t LevelOf(std::uint64_t range_bytes) const;
  // Returns the hash of a node that covers only zeros.
  const MerkleHash& Zero(std::uint32_t level) const { return zero_.at(level); }

  // Returns the hash of the node of this level that covers bytes, which may be shorter than the
  // range of the node: the rest is zeros. The kRegionHeadroom bytes before the first byte must be
  // writable; they are changed during the call only. Calls check, if it is set, at least once for
  // each MiB; it may throw.
  MerkleHash Hash(std::span<std::byte> bytes, std::uint32_t level,
                  const std::function<void()>& check = {}) const;

  // A node of a level: its position among the nodes of this level, and its hash.
  using Node = std::pair<std::uint64_t, MerkleHash>;
  // Returns "blake3:" and the root in hex. nodes are the nodes of this level, by position, except
  // those that cover only zeros.
  std::string Root(std::vector<Node> nodes, std::uint32_t level) const;

 private:
  const std::uint64_t size_;
  std::vector<MerkleHash> zero_;  // By level.
};

// A MerkleHasher collects the hashes of a file's regions, in any order, and combines them into the
// root. It keeps 40 bytes for each 2 MiB of data, and nothing for holes.
class MerkleHasher : public disk::RegionConsumer {
 public:
  // size is the size of the complete file in bytes.
  explicit MerkleHasher(std::uint64_t size) : tree_(size) {}

  void Process(const disk::Region& region) override;

  // Returns "blake3:" and the root in hex. Call once, after the last region.
  std::string Finish();

 private:
  const MerkleTree tree_;
  std::mutex mutex_;
  std::vector<MerkleTree::Node> regions_;  // Guarded by mutex_.
};

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_MERKLE_H_
