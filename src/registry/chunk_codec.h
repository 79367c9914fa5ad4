// SPDX-License-Identifier: Apache-2.0
//
// Compresses chunks into blobs, and decompresses them.

#ifndef MSB_SRC_REGISTRY_CHUNK_CODEC_H_
#define MSB_SRC_REGISTRY_CHUNK_CODEC_H_

#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/disk/extents.h"

namespace msb::registry {

// A ChunkCodec holds the zstd contexts and a buffer for one chunk. Not thread-safe.
class ChunkCodec {
 public:
  ChunkCodec();

  // Reads a chunk: the given extents of data from the file, and zeros for the rest of the range.
  // The result is valid until the next call; the bytes before it may be overwritten
  // (disk::kRegionHeadroom).
  std::span<std::byte> Read(int fd, const disk::Extent& range, std::span<const disk::Extent> data);
  // Returns the blob of a chunk: one zstd frame. Leaves out the zeros at the end, so that the blob
  // does not depend on where the file ends.
  std::string Compress(std::span<const std::byte> chunk, int level);
  // Returns the content of a blob, which is at most limit bytes long; valid until the next call,
  // with headroom as above.
  // Throws std::invalid_argument if the blob is not exactly one zstd frame, or has longer content.
  std::span<std::byte> Decompress(std::string_view blob, std::uint64_t limit);
  // Frees the buffer if it is larger than chunks usually are. Ends the validity of results.
  void Trim();

 private:
  // Returns room for size bytes, with the headroom before them.
  std::span<std::byte> Room(std::uint64_t size);

  struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };
  std::unique_ptr<ZSTD_CCtx, Free> compression_;
  std::unique_ptr<ZSTD_DCtx, Free> decompression_;
  std::vector<std::byte> buffer_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_CHUNK_CODEC_H_
