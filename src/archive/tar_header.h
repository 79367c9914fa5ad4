// What a tar header says that libarchive does not tell, or is lenient about: the type of the entry,
// its numbers, and the map of a sparse entry as it is listed.
//
// All functions throw kSnapshotIntegrity for what cannot be.

#ifndef MSB_SRC_ARCHIVE_TAR_HEADER_H_
#define MSB_SRC_ARCHIVE_TAR_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "src/archive/tar_format.h"
#include "src/disk/extents.h"

namespace msb::archive {

using TarRecord = std::span<const std::byte, kTarRecordBytes>;

class RawTarHeader {
 public:
  RawTarHeader() = default;
  explicit RawTarHeader(TarRecord record);

  // True until all records that the map goes on in have been added.
  bool IsIncomplete() const { return incomplete_; }
  void AddExtension(TarRecord record);

  // Throws unless the map is one of its file: its ranges in order, apart from each other, within
  // the size, and as long as what is stored.
  void CheckMap() const;

  char type() const { return type_; }
  bool IsSparse() const { return type_ == 'S'; }
  std::uint64_t size() const { return size_; }      // Of the file.
  std::uint64_t stored() const { return stored_; }  // Bytes that the entry carries.
  const std::vector<disk::Extent>& ranges() const { return ranges_; }
  // Bytes, with its extensions.
  std::uint64_t length() const { return records_ * kTarRecordBytes; }

 private:
  void AddRanges(std::span<const TarRangeField> fields, char is_extended);

  char type_ = '\0';
  bool incomplete_ = false;
  bool list_ended_ = false;
  std::uint64_t records_ = 1;
  std::uint64_t size_ = 0;
  std::uint64_t stored_ = 0;
  std::vector<disk::Extent> ranges_;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_TAR_HEADER_H_
