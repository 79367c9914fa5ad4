// SPDX-License-Identifier: Apache-2.0
//
// Parses the parts of a tar header that libarchive does not report or does not check strictly: the
// type of the entry, its numbers, and the map of a sparse entry.
//
// All functions throw kSnapshotIntegrity if the header is malformed.

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

  // Returns true while extension records of the map are still to be added.
  bool IsIncomplete() const { return incomplete_; }
  void AddExtension(TarRecord record);

  // Throws unless the map fits the file: its ranges must be in order and aligned, must not touch
  // each other, must end at the end of the file, and must add up to the number of bytes that are
  // stored.
  void CheckMap() const;

  char type() const { return type_; }
  bool IsSparse() const { return type_ == 'S'; }
  std::uint64_t size() const { return size_; }      // Size of the file.
  std::uint64_t stored() const { return stored_; }  // Bytes that the entry stores.
  const std::vector<disk::Extent>& ranges() const { return ranges_; }
  // Returns the length of the header with its extensions, in bytes.
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
