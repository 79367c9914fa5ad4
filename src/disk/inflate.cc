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

bool InflateZstd(std::span<const std::byte> packed, std::span<std::byte> unpacked) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                     ZSTD_freeDCtx);
  if (!context) return false;
  ZSTD_inBuffer input{packed.data(), packed.size(), 0};
  ZSTD_outBuffer output{unpacked.data(), unpacked.size(), 0};
  while (output.pos < output.size) {
    const std::size_t before = input.pos + output.pos;
    const std::size_t result = ZSTD_decompressStream(context.get(), &output, &input);
    if (ZSTD_isError(result) != 0 || input.pos + output.pos == before) return false;
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
