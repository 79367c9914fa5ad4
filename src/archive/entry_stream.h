// The content of an archive's entry as the regions of the file that it becomes.

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

// The ranges of a sparse entry become data; of a dense entry, each 4 KiB block that is not all
// zeros does, since that is how the file will have had its holes.
class EntryStream : public disk::RegionStream {
 public:
  // For the entry that reader has just come to. hasher, if not null, gets the stored bytes.
  EntryStream(TarReader& reader, bool sparse, MemberHasher* hasher)
      : reader_(reader), sparse_(sparse), hasher_(hasher) {}

  bool Next(std::uint64_t& offset, std::vector<disk::Extent>& data,
            std::span<std::byte> bytes) override;
  void Stop() override { reader_.Stop(); }

 private:
  // Makes piece_ not empty; false at the end of the entry.
  bool FetchPiece();
  // Takes the first bytes of the piece, all in one region, into bytes, which is that region.
  void TakeSparse(std::size_t count, std::uint64_t region, std::vector<disk::Extent>& data,
                  std::span<std::byte> bytes);
  void TakeDense(std::size_t count, std::uint64_t region, std::vector<disk::Extent>& data,
                 std::span<std::byte> bytes);
  void Drop(std::size_t count);

  TarReader& reader_;
  const bool sparse_;
  MemberHasher* hasher_;
  TarPiece piece_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_ENTRY_STREAM_H_
