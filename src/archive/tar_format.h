// SPDX-License-Identifier: Apache-2.0
//
// The records of the tar format that snapshot archives use: the format of GNU tar before version
// 1.14 ("oldgnu"). docs/formats.md describes the fields.

#ifndef MSB_SRC_ARCHIVE_TAR_FORMAT_H_
#define MSB_SRC_ARCHIVE_TAR_FORMAT_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace msb::archive {

inline constexpr std::size_t kTarRecordBytes = 512;
// Returns size, in bytes, rounded up to complete records.
constexpr std::uint64_t PaddedToTarRecord(std::uint64_t size) {
  return (size + kTarRecordBytes - 1) / kTarRecordBytes * kTarRecordBytes;
}

inline constexpr std::size_t kTarRangesInHeader = 4;
inline constexpr std::size_t kTarRangesInExtension = 21;

struct TarRangeField {
  std::array<char, 12> offset;
  std::array<char, 12> length;
};

struct TarHeader {
  std::array<char, 100> path;
  std::array<char, 8> mode;
  std::array<char, 8> uid;
  std::array<char, 8> gid;
  std::array<char, 12> size;
  std::array<char, 12> mtime;
  std::array<char, 8> checksum;
  char type;
  std::array<char, 100> link;
  std::array<char, 8> magic;
  std::array<char, 32> user;
  std::array<char, 32> group;
  std::array<char, 8> device_major;
  std::array<char, 8> device_minor;
  std::array<char, 12> access_time;
  std::array<char, 12> change_time;
  std::array<char, 12> offset;
  std::array<char, 4> long_names;
  char unused;
  std::array<TarRangeField, kTarRangesInHeader> ranges;
  char is_extended;
  std::array<char, 12> real_size;
  std::array<char, 17> padding;
};
static_assert(sizeof(TarHeader) == kTarRecordBytes);

struct TarExtension {
  std::array<TarRangeField, kTarRangesInExtension> ranges;
  char is_extended;
  std::array<char, 7> padding;
};
static_assert(sizeof(TarExtension) == kTarRecordBytes);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_TAR_FORMAT_H_
