// SPDX-License-Identifier: Apache-2.0

#include "src/registry/chunk_codec.h"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/throw.h"
#include "src/disk/scan.h"

namespace msb::registry {
namespace {

// The number of bytes that are read or hashed, and that are compressed, between two checks of the
// stop flag. zstd compresses blocks of 128 KiB, so shorter pieces would not end sooner.
constexpr std::size_t kPiece = 8 << 20;
constexpr std::size_t kCompressPiece = 128 << 10;

void CheckCompression(std::size_t result) {
  if (ZSTD_isError(result) == 0) return;
  base::Throw(ErrorKind::kInternal, "cannot compress: {}", ZSTD_getErrorName(result));
}

}  // namespace

std::size_t CompressionBytes(int level) {
  struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };
  const std::unique_ptr<ZSTD_CCtx, Free> context(ZSTD_createCCtx());
  if (!context) throw std::bad_alloc();
  CheckCompression(ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, level));
  // The first call allocates the tables and the window.
  ZSTD_inBuffer in{.src = "", .size = 1, .pos = 0};
  ZSTD_outBuffer out{.dst = nullptr, .size = 0, .pos = 0};
  CheckCompression(ZSTD_compressStream2(context.get(), &out, &in, ZSTD_e_continue));
  return ZSTD_sizeof_CCtx(context.get());
}

ChunkCodec::ChunkCodec(const std::atomic<bool>* stop)
    : stop_(stop), compression_(ZSTD_createCCtx()), decompression_(ZSTD_createDCtx()) {
  if (!compression_ || !decompression_) throw std::bad_alloc();
}

std::span<std::byte> ChunkCodec::Room(std::uint64_t size) {
  if (buffer_.size() < disk::kRegionHeadroom + size) buffer_.resize(disk::kRegionHeadroom + size);
  return std::span(buffer_).subspan(disk::kRegionHeadroom, size);
}

void ChunkCodec::Trim() {
  if (buffer_.size() > disk::kRegionHeadroom + kMaxKeptBytes) buffer_ = std::vector<std::byte>();
}

void ChunkCodec::CheckStop() const {
  if (stop_ != nullptr && stop_->load(std::memory_order_relaxed)) throw WorkStopped();
}

std::span<std::byte> ChunkCodec::Read(int fd, const disk::Extent& range,
                                      std::span<const disk::Extent> data) {
  const std::span<std::byte> chunk = Room(range.length);
  std::uint64_t filled = 0;
  for (const disk::Extent& extent : data) {
    const std::uint64_t start = extent.offset - range.offset;
    std::ranges::fill(chunk.subspan(filled, start - filled), std::byte{0});
    for (std::uint64_t at = 0; at < extent.length; at += kPiece) {
      CheckStop();
      base::ReadExactly(fd, chunk.data() + start + at,
                        std::min<std::uint64_t>(kPiece, extent.length - at), extent.offset + at);
    }
    filled = start + extent.length;
  }
  std::ranges::fill(chunk.subspan(filled), std::byte{0});
  return chunk;
}

artifact::MerkleHash ChunkCodec::Hash(const artifact::MerkleTree& tree, std::span<std::byte> chunk,
                                      std::uint32_t level) const {
  return tree.Hash(chunk, level, [this] { CheckStop(); });
}

std::string ChunkCodec::Digest(std::string_view blob) const {
  base::Sha256 hash;
  for (; !blob.empty(); blob.remove_prefix(std::min(kPiece, blob.size()))) {
    CheckStop();
    hash.Update(blob.data(), std::min(kPiece, blob.size()));
  }
  return hash.Finish();
}

std::string ChunkCodec::Compress(std::span<const std::byte> chunk, int level) {
  while (!chunk.empty() && chunk.back() == std::byte{0}) chunk = chunk.first(chunk.size() - 1);
  std::string blob(ZSTD_compressBound(chunk.size()), '\0');
  ZSTD_CCtx* context = compression_.get();
  CheckCompression(ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters));
  CheckCompression(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level));
  // Makes the frame record the size, and zstd use only the memory that this size needs.
  CheckCompression(ZSTD_CCtx_setPledgedSrcSize(context, chunk.size()));
  ZSTD_outBuffer out{.dst = blob.data(), .size = blob.size(), .pos = 0};
  for (; chunk.size() > kCompressPiece; chunk = chunk.subspan(kCompressPiece)) {
    CompressPiece(chunk.first(kCompressPiece), false, out);
  }
  if (CompressPiece(chunk, true, out) != 0) {
    base::Throw(ErrorKind::kInternal, "a blob is longer than ZSTD_compressBound");
  }
  blob.resize(out.pos);
  blob.shrink_to_fit();
  return blob;
}

std::size_t ChunkCodec::CompressPiece(std::span<const std::byte> piece, bool is_last,
                                      ZSTD_outBuffer& out) {
  CheckStop();
  ZSTD_inBuffer in{.src = piece.data(), .size = piece.size(), .pos = 0};
  const std::size_t left =
      ZSTD_compressStream2(compression_.get(), &out, &in, is_last ? ZSTD_e_end : ZSTD_e_continue);
  CheckCompression(left);
  if (in.pos != in.size) base::Throw(ErrorKind::kInternal, "zstd did not compress all of a chunk");
  return left;
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
