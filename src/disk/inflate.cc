#include "src/disk/inflate.h"

#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace msb::disk {
namespace {

constexpr int kRawDeflateWindow = -12;  // Bits; negative: without zlib's header.

bool InflateZlib(std::span<const std::byte> packed, std::span<std::byte> unpacked) {
  z_stream stream{};
  if (inflateInit2(&stream, kRawDeflateWindow) != Z_OK) return false;
  const std::unique_ptr<z_stream, decltype(&inflateEnd)> end(&stream, inflateEnd);
  // zlib does not write to its input.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(unpacked.data());
  stream.avail_out = static_cast<uInt>(unpacked.size());
  const int result = inflate(&stream, Z_FINISH);
  // What follows in the last sector is not packed data.
  return stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR);
}

// A cluster may be several frames. Each is unpacked at once and to its place, so that it is not the
// frame that says how much memory that takes.
bool InflateZstd(std::span<const std::byte> packed, std::span<std::byte> unpacked) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                     ZSTD_freeDCtx);
  if (!context) return false;
  while (!unpacked.empty()) {
    const std::size_t frame = ZSTD_findFrameCompressedSize(packed.data(), packed.size());
    if (ZSTD_isError(frame) != 0) return false;
    const std::size_t length =
        ZSTD_decompressDCtx(context.get(), unpacked.data(), unpacked.size(), packed.data(), frame);
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
