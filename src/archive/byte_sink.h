// Where the bytes of an archive go, in order.

#ifndef MSB_SRC_ARCHIVE_BYTE_SINK_H_
#define MSB_SRC_ARCHIVE_BYTE_SINK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace msb::archive {

// Not safe for use by two threads at a time; by one after the other it is.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void Write(std::span<const std::byte> bytes) = 0;
  // The same as writing count zero bytes.
  virtual void WriteZeros(std::uint64_t count) = 0;
  // Hands on what is held back; call once, last.
  virtual void Finish() = 0;
};

// Writes to a new file from its beginning; zeros become holes. Does not flush it to the disk.
std::unique_ptr<ByteSink> MakeFileSink(int fd);

// Compresses to a file, as one zstd frame with a checksum of its content. level is 1 to 19; threads
// 0 means one for each core. More threads than 8 are of no use, and make 8. Deterministic: the
// same bytes give the same frame, whatever the number of threads.
std::unique_ptr<ByteSink> MakeZstdSink(int fd, int level, unsigned threads);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_BYTE_SINK_H_
