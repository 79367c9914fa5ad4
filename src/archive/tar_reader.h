// SPDX-License-Identifier: Apache-2.0
//
// Reads the entries of an untrusted tar stream. libarchive parses the stream, and this reader
// refuses malformed streams that libarchive would accept: every byte of the stream must belong to
// an entry of a kind that snapshot archives have, or to the zero records that end the stream.
//
// All functions throw kSnapshotIntegrity if the stream is malformed, and pass on the errors of
// reading the input.

#ifndef MSB_SRC_ARCHIVE_TAR_READER_H_
#define MSB_SRC_ARCHIVE_TAR_READER_H_

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/archive/archive_input.h"
#include "src/archive/tar_header.h"
#include "src/disk/extents.h"

struct archive;
struct archive_entry;

namespace msb::archive {

struct TarEntry {
  std::string path;
  bool is_directory = false;
  bool is_sparse = false;
  std::uint64_t size = 0;    // Size of the file, holes included.
  std::uint64_t stored = 0;  // Bytes that the entry stores.
  // The ranges of a sparse entry, as its map lists them.
  std::vector<disk::Extent> ranges;
};

// A TarPiece is a part of a file, which begins at offset in that file.
struct TarPiece {
  std::uint64_t offset = 0;
  std::span<const std::byte> bytes;
};

class TarReader {
 public:
  // The input must outlive the reader.
  explicit TarReader(ArchiveInput& input);
  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;
  ~TarReader();

  // Advances to the next entry and returns it, or nullopt at the end of the stream. The caller must
  // have read the previous entry to its end.
  std::optional<TarEntry> Next();

  // Returns the next piece of the entry's file, or nullopt at the end of the file. Pieces come in
  // order of their offsets. Each piece is within the file and, if the entry is sparse, within one
  // of its ranges. A piece is valid until the next call.
  std::optional<TarPiece> Read();

  // Makes a call of Read that is waiting for input in another thread, and all later calls, throw
  // kCancelled.
  void Stop() { input_.Stop(); }

 private:
  struct Free {
    void operator()(::archive* reader) const;
  };
  // The read callback of libarchive: gives libarchive the next block.
  static std::ptrdiff_t Fetch(::archive* reader, void* self, const void** bytes);

  std::span<const std::byte> FetchBlock();
  // Throws the error of reading the input if there was one, and otherwise an error with the message
  // of libarchive.
  [[noreturn]] void Fail();
  // Sets header_ to the next header in the stream, or to an empty one at its end.
  void PeekHeader();
  // Adds the extension records at the beginning of bytes, which follow those added before, to
  // header_.
  void TakeExtensions(std::span<const std::byte> bytes);
  TarEntry Describe(::archive_entry* entry) const;
  // Throws an error about the end of the stream, or about its start if it has no entries.
  [[noreturn]] void RefuseEnd(std::string_view problem) const;
  // Throws unless the last entry is followed only by zeros, in at least two complete records.
  void CheckEnd();

  ArchiveInput& input_;
  std::unique_ptr<::archive, Free> reader_;
  std::exception_ptr failure_;
  std::span<const std::byte> block_;  // The block that libarchive has.
  std::string start_;                 // The first bytes of the stream, at most kProbeBytes.
  std::uint64_t block_start_ = 0;     // Its offset in the stream.
  // The block after block_, if it was fetched before libarchive asked for it.
  std::optional<std::span<const std::byte>> prefetched_;
  std::uint64_t header_bytes_ = 0;  // Bytes fetched during the current call of Next or Read.

  RawTarHeader header_;            // The header of the current entry.
  std::optional<TarEntry> entry_;  // The current entry, as libarchive and header_ describe it.
  std::uint64_t delivered_ = 0;    // Bytes of it that Read has returned.
  std::uint64_t position_ = 0;     // The end of the last piece in the file.
  // The offset in the stream at which the next header must be, according to the current one.
  std::uint64_t next_header_ = 0;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_TAR_READER_H_
