// SPDX-License-Identifier: Apache-2.0
//
// Reads, hashes, compresses and decompresses chunks.

#ifndef MSB_SRC_REGISTRY_CHUNK_CODEC_H_
#define MSB_SRC_REGISTRY_CHUNK_CODEC_H_

#include <zstd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/artifact/merkle.h"
#include "src/disk/extents.h"

namespace msb::registry {

// The size of the largest buffer, in bytes, that a codec keeps from one chunk to the next.
inline constexpr std::uint64_t kMaxKeptBytes = 8 << 20;

// Returns how many bytes of memory zstd occupies to compress chunks at this level.
std::size_t CompressionBytes(int level);

// Thrown to end a task whose result is no longer needed.
class WorkStopped : public std::exception {
 public:
  const char* what() const noexcept override { return "the work was stopped"; }
};

// A ChunkCodec holds the zstd contexts and a buffer for one chunk. Not thread-safe, but any thread
// may set stop: all functions but Decompress then throw WorkStopped. They check it after each piece
// of work, because a chunk may be as long as 256 MiB, and compressing even one of 8 MiB takes
// several seconds at high levels.
class ChunkCodec {
 public:
  // stop must outlive the codec. Default: the work cannot be stopped.
  explicit ChunkCodec(const std::atomic<bool>* stop = nullptr);

  // Reads a chunk: the given extents of data from the file, and zeros for the rest of the range.
  // The result is valid until the next call; the bytes before it may be overwritten
  // (disk::kRegionHeadroom).
  std::span<std::byte> Read(int fd, const disk::Extent& range, std::span<const disk::Extent> data);
  // Returns the hash of the node of this level that covers the chunk (MerkleTree::Hash).
  artifact::MerkleHash Hash(const artifact::MerkleTree& tree, std::span<std::byte> chunk,
                            std::uint32_t level) const;
  // Returns the SHA-256 of a blob, "sha256:…".
  std::string Digest(std::string_view blob) const;
  // Returns the blob of a chunk: one zstd frame. Leaves out the zeros at the end, so that the blob
  // does not depend on where the file ends.
  std::string Compress(std::span<const std::byte> chunk, int level);
  // Returns the content of a blob, which is at most limit bytes long; valid until the next call,
  // with headroom as above.
  // Throws std::invalid_argument if the blob is not exactly one zstd frame, or has longer content.
  std::span<std::byte> Decompress(std::string_view blob, std::uint64_t limit);
  // Frees the buffer if it is larger than chunks usually are. Ends the validity of results.
  void Trim();
  // Throws WorkStopped if stop is set.
  void CheckStop() const;

 private:
  // Returns room for size bytes, with the headroom before them.
  std::span<std::byte> Room(std::uint64_t size);

  // Compresses one piece of a chunk. Returns the number of bytes of the frame that are not in out.
  std::size_t CompressPiece(std::span<const std::byte> piece, bool is_last, ZSTD_outBuffer& out);

  struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };

  const std::atomic<bool>* const stop_;
  std::unique_ptr<ZSTD_CCtx, Free> compression_;
  std::unique_ptr<ZSTD_DCtx, Free> decompression_;
  std::vector<std::byte> buffer_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_CHUNK_CODEC_H_
