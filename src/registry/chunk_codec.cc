// SPDX-License-Identifier: Apache-2.0

#include "src/registry/chunk_codec.h"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "src/base/file.h"
#include "src/base/throw.h"
#include "src/disk/scan.h"

namespace msb::registry {
namespace {

// A table may have chunks of up to 256 MiB, which must not be kept by each worker.
constexpr std::size_t kMaxKeptBytes = 16 << 20;

}  // namespace

ChunkCodec::ChunkCodec() : compression_(ZSTD_createCCtx()), decompression_(ZSTD_createDCtx()) {
  if (!compression_ || !decompression_) throw std::bad_alloc();
}

std::span<std::byte> ChunkCodec::Room(std::uint64_t size) {
  if (buffer_.size() < disk::kRegionHeadroom + size) buffer_.resize(disk::kRegionHeadroom + size);
  return std::span(buffer_).subspan(disk::kRegionHeadroom, size);
}

void ChunkCodec::Trim() {
  if (buffer_.size() > disk::kRegionHeadroom + kMaxKeptBytes) buffer_ = std::vector<std::byte>();
}

std::span<std::byte> ChunkCodec::Read(int fd, const disk::Extent& range,
                                      std::span<const disk::Extent> data) {
  const std::span<std::byte> chunk = Room(range.length);
  std::uint64_t filled = 0;
  for (const disk::Extent& extent : data) {
    const std::uint64_t start = extent.offset - range.offset;
    std::ranges::fill(chunk.subspan(filled, start - filled), std::byte{0});
    base::ReadExactly(fd, chunk.data() + start, extent.length, extent.offset);
    filled = start + extent.length;
  }
  std::ranges::fill(chunk.subspan(filled), std::byte{0});
  return chunk;
}

std::string ChunkCodec::Compress(std::span<const std::byte> chunk, int level) {
  while (!chunk.empty() && chunk.back() == std::byte{0}) chunk = chunk.first(chunk.size() - 1);
  std::string blob(ZSTD_compressBound(chunk.size()), '\0');
  ZSTD_CCtx_reset(compression_.get(), ZSTD_reset_session_and_parameters);
  ZSTD_CCtx_setParameter(compression_.get(), ZSTD_c_compressionLevel, level);
  const std::size_t size =
      ZSTD_compress2(compression_.get(), blob.data(), blob.size(), chunk.data(), chunk.size());
  if (ZSTD_isError(size) != 0) {
    base::Throw(ErrorKind::kInternal, "cannot compress: {}", ZSTD_getErrorName(size));
  }
  blob.resize(size);
  blob.shrink_to_fit();
  return blob;
}

std::span<std::byte> ChunkCodec::Decompress(std::string_view blob, std::uint64_t limit) {
  // A skippable frame, which has no content, begins with other bytes.
  constexpr std::string_view kMagic = "\x28\xb5\x2f\xfd";
  const std::size_t frame = ZSTD_findFrameCompressedSize(blob.data(), blob.size());
  if (!blob.starts_with(kMagic) || ZSTD_isError(frame) != 0 || frame != blob.size()) {
    throw std::invalid_argument("it is not exactly one zstd frame");
  }
  const std::span<std::byte> room = Room(limit);
  const std::size_t size =
      ZSTD_decompressDCtx(decompression_.get(), room.data(), room.size(), blob.data(), blob.size());
  if (ZSTD_isError(size) != 0) {
    throw std::invalid_argument(std::string("it cannot be decompressed to at most ") +
                                std::to_string(limit) + " bytes: " + ZSTD_getErrorName(size));
  }
  return room.first(size);
}

}  // namespace msb::registry
