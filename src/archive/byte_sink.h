// SPDX-License-Identifier: Apache-2.0
//
// A ByteSink receives the bytes of an archive in order.

#ifndef MSB_SRC_ARCHIVE_BYTE_SINK_H_
#define MSB_SRC_ARCHIVE_BYTE_SINK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "msb/context.h"
#include "src/base/output_stream.h"

namespace msb::archive {

// Not thread-safe: calls must not overlap, but may come from different threads.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void Write(std::span<const std::byte> bytes) = 0;
  // Has the same effect as writing count zero bytes, which the default implementation does.
  virtual void WriteZeros(std::uint64_t count);
  // Writes everything that is buffered. Call once, after the last write.
  virtual void Finish() = 0;
};

// Returns a sink that writes to an empty file, from its beginning. WriteZeros leaves holes in the
// file. The sink does not flush the file to disk.
std::unique_ptr<ByteSink> MakeFileSink(int fd);

// Returns a sink that writes to a stream. Its writes wait for the reader and check ctx. ctx and
// stream must outlive the sink.
std::unique_ptr<ByteSink> MakeStreamSink(const Context& ctx, base::OutputStream& stream);

// Throws kInvalidArgument unless level is a compression level from 1 to 19. Higher levels of zstd
// need windows that Import refuses.
void CheckLevel(int level);

// Returns a sink that compresses to out, as one zstd frame with a checksum of its content. level is
// 1 to 19. threads is the number of compression threads; 0 means one for each core. At most 8 are
// used, since more do not help. The same bytes give the same frame, regardless of the number of
// threads, with one exception: if libzstd cannot create any thread, the caller's thread compresses,
// which may give a different frame with the same content.
std::unique_ptr<ByteSink> MakeZstdSink(std::unique_ptr<ByteSink> out, int level, unsigned threads);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_BYTE_SINK_H_
