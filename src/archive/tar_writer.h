// Writing the tar format of snapshot archives: the old GNU one, of which libarchive cannot write
// the sparse entries. docs/formats.md describes the fields.

#ifndef MSB_SRC_ARCHIVE_TAR_WRITER_H_
#define MSB_SRC_ARCHIVE_TAR_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "src/archive/byte_sink.h"
#include "src/archive/sparse_map.h"

namespace msb::archive {

// Bytes; the longest path that an entry can have.
inline constexpr std::size_t kMaxTarPath = 100;

class TarWriter {
 public:
  // mtime is what all entries get, seconds since 1970.
  TarWriter(ByteSink& sink, std::int64_t mtime) : sink_(sink), mtime_(mtime) {}

  // A whole file.
  void AddFile(std::string_view path, std::string_view content);

  // Begins a file of size bytes, which Write and WriteZeros then bring.
  void BeginFile(std::string_view path, std::uint64_t size);
  // Begins a file with holes; Write brings the bytes of its ranges.
  void BeginSparseFile(std::string_view path, const SparseMap& map);
  void Write(std::span<const std::byte> bytes);
  void WriteZeros(std::uint64_t count);
  // Ends a file. Throws kInternal unless exactly its bytes were written.
  void EndFile();

  // Ends the archive.
  void Finish();

 private:
  ByteSink& sink_;
  std::int64_t mtime_;
  std::uint64_t expected_ = 0;  // Bytes of the open file that are yet to come.
  std::uint64_t padding_ = 0;   // After them.
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_TAR_WRITER_H_
