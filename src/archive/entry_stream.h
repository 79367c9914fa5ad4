// SPDX-License-Identifier: Apache-2.0
//
// An EntryStream delivers the content of an archive entry as regions of the file that is extracted
// from it.

#ifndef MSB_SRC_ARCHIVE_ENTRY_STREAM_H_
#define MSB_SRC_ARCHIVE_ENTRY_STREAM_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "src/archive/member_hash.h"
#include "src/archive/tar_reader.h"
#include "src/disk/scan.h"

namespace msb::archive {

// The ranges of a sparse entry are data, and the rest of its file consists of holes. A dense entry
// does not record where its file had holes, so each block of 4 KiB that is all zeros becomes a
// hole.
class EntryStream : public disk::RegionStream {
 public:
  // Reads the current entry of reader. hasher, if not null, receives the stored bytes.
  EntryStream(TarReader& reader, bool sparse, MemberHasher* hasher)
      : reader_(reader), sparse_(sparse), hasher_(hasher) {}

  bool Next(std::uint64_t& offset, std::vector<disk::Extent>& data,
            std::span<std::byte> bytes) override;
  void Stop() override { reader_.Stop(); }

 private:
  // Fetches the next piece if piece_ is empty. Returns false at the end of the entry.
  bool FetchPiece();
  // TakeSparse and TakeDense move the first count bytes of the piece into bytes, the content of the
  // region at offset region, and add the extents that have data to data. The bytes must all be in
  // that region.
  void TakeSparse(std::size_t count, std::uint64_t region, std::vector<disk::Extent>& data,
                  std::span<std::byte> bytes);
  void TakeDense(std::size_t count, std::uint64_t region, std::vector<disk::Extent>& data,
                 std::span<std::byte> bytes);
  // Removes the first count bytes from the piece.
  void Drop(std::size_t count);

  TarReader& reader_;
  const bool sparse_;
  MemberHasher* hasher_;
  TarPiece piece_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_ENTRY_STREAM_H_
