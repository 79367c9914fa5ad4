// SPDX-License-Identifier: Apache-2.0

#include "src/disk/inflate.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <memory>
#include <new>

namespace msb::disk {
namespace {

constexpr int kRawDeflateWindow = -12;  // Bits; negative means without the zlib header.

bool InflateZlib(std::span<const std::byte> packed, std::span<std::byte> unpacked) {
  z_stream stream{};
  // The arguments are valid, so only memory can be missing.
  if (inflateInit2(&stream, kRawDeflateWindow) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, decltype(&inflateEnd)> end(&stream, inflateEnd);
  // zlib does not write to its input.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(unpacked.data());
  stream.avail_out = static_cast<uInt>(unpacked.size());
  const int result = inflate(&stream, Z_FINISH);
  if (result == Z_MEM_ERROR) throw std::bad_alloc();
  // The rest of the last sector is not compressed data.
  return stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR);
}

// A cluster may consist of several frames. Each is decompressed in one call and directly to its
// place, so that the header of a frame does not determine how much memory this takes.
bool InflateZstd(std::span<const std::byte> packed, std::span<std::byte> unpacked) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                     ZSTD_freeDCtx);
  if (!context) throw std::bad_alloc();
  while (!unpacked.empty()) {
    const std::size_t frame = ZSTD_findFrameCompressedSize(packed.data(), packed.size());
    if (ZSTD_isError(frame) != 0) return false;
    const std::size_t length =
        ZSTD_decompressDCtx(context.get(), unpacked.data(), unpacked.size(), packed.data(), frame);
    if (ZSTD_getErrorCode(length) == ZSTD_error_memory_allocation) throw std::bad_alloc();
    if (ZSTD_isError(length) != 0) return false;
    packed = packed.subspan(frame);
    unpacked = unpacked.subspan(length);
  }
  return true;
}

}  // namespace

bool Inflate(Qcow2Compression compression, std::span<const std::byte> packed,
             std::span<std::byte> unpacked) {
  return compression == Qcow2Compression::kZlib ? InflateZlib(packed, unpacked)
                                                : InflateZstd(packed, unpacked);
}

}  // namespace msb::disk
