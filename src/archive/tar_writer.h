// SPDX-License-Identifier: Apache-2.0
//
// Writes the tar format of snapshot archives, the old GNU format, whose sparse entries libarchive
// cannot write. docs/formats.md describes the fields.

#ifndef MSB_SRC_ARCHIVE_TAR_WRITER_H_
#define MSB_SRC_ARCHIVE_TAR_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "src/archive/byte_sink.h"
#include "src/archive/sparse_map.h"

namespace msb::archive {

// The longest path of an entry, in bytes.
inline constexpr std::size_t kMaxTarPath = 100;

class TarWriter {
 public:
  // mtime is the modification time of all entries, in seconds since 1970.
  TarWriter(ByteSink& sink, std::int64_t mtime) : sink_(sink), mtime_(mtime) {}

  // Adds a complete file.
  void AddFile(std::string_view path, std::string_view content);

  // Begins a file of size bytes, which the caller then writes with Write and WriteZeros.
  void BeginFile(std::string_view path, std::uint64_t size);
  // Begins a file with holes. The caller then writes the bytes of its ranges with Write.
  void BeginSparseFile(std::string_view path, const SparseMap& map);
  void Write(std::span<const std::byte> bytes);
  void WriteZeros(std::uint64_t count);
  // Ends a file. Throws kInternal unless exactly the bytes of the file were written.
  void EndFile();

  // Ends the archive. Call once, after the last file.
  void Finish();

 private:
  ByteSink& sink_;
  std::int64_t mtime_;
  std::uint64_t expected_ = 0;  // Bytes of the open file that are not written yet.
  std::uint64_t padding_ = 0;   // Bytes of padding after the open file.
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_TAR_WRITER_H_
