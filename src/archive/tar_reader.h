// The entries of a tar stream that nobody vouches for. libarchive parses; what it is lenient about
// is refused here: every byte of the stream must belong to an entry of a kind that snapshot
// archives have, or to the two zero records that end it.
//
// All functions throw kSnapshotIntegrity for what is not such a stream.

#ifndef MSB_SRC_ARCHIVE_TAR_READER_H_
#define MSB_SRC_ARCHIVE_TAR_READER_H_

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
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
  std::uint64_t size = 0;    // Of the file, holes included.
  std::uint64_t stored = 0;  // Bytes that the entry carries.
  // Of a sparse entry, as its map lists them.
  std::vector<disk::Extent> ranges;
};

// The next bytes of a file, at this offset in it.
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

  // The next entry; nothing at the end of the stream. All of the entry before must have been read.
  std::optional<TarEntry> Next();

  // The next piece of the entry's file, in order of the offsets, each within the file and, if it is
  // sparse, in one of its ranges; nothing at its end. Valid until the next call.
  std::optional<TarPiece> Read();

  // Makes a Read that waits for input on another thread, and all that follow, throw kCancelled.
  void Stop() { input_.Stop(); }

 private:
  struct Free {
    void operator()(::archive* reader) const;
  };
  static std::ptrdiff_t Fetch(::archive* reader, void* self, const void** bytes);

  std::span<const std::byte> FetchBlock();
  // Throws what reading the input threw, or what libarchive says.
  [[noreturn]] void Fail();
  // Makes header_ what comes next in the stream.
  void PeekHeader();
  // Adds the extensions of header_ in these bytes, which follow what it has.
  void TakeExtensions(std::span<const std::byte> bytes);
  TarEntry Describe(::archive_entry* entry) const;
  void CheckEnd();

  ArchiveInput& input_;
  std::unique_ptr<::archive, Free> reader_;
  std::exception_ptr failure_;
  // What libarchive has of the stream, and what was fetched before it asked for it.
  std::span<const std::byte> block_;
  std::uint64_t block_start_ = 0;
  std::optional<std::span<const std::byte>> prefetched_;
  std::uint64_t header_bytes_ = 0;  // Fetched since the last piece.

  RawTarHeader header_;            // Of the open entry,
  std::optional<TarEntry> entry_;  // as libarchive and it describe it,
  std::uint64_t delivered_ = 0;    // how many bytes of it Read gave,
  std::uint64_t position_ = 0;     // and the end of the last piece in the file.
  // Where the next header must be in the stream, if this entry is all that it says.
  std::uint64_t next_header_ = 0;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_TAR_READER_H_
