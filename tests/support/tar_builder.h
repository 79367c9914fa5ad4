// SPDX-License-Identifier: Apache-2.0
//
// Builds tar streams byte by byte: valid ones, and ones that no tar program would write.

#ifndef MSB_TESTS_SUPPORT_TAR_BUILDER_H_
#define MSB_TESTS_SUPPORT_TAR_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace msb::test {

inline constexpr std::size_t kTarRecordBytes = 512;

// Offsets of the header fields that tests damage.
inline constexpr std::size_t kTarSizeField = 124;
inline constexpr std::size_t kTarChecksumField = 148;
inline constexpr std::size_t kTarMagicField = 257;
// Entries of type 'S': the first of four (offset, length) pairs of 12 bytes each, and the fields
// after them.
inline constexpr std::size_t kTarSparseMap = 386;
inline constexpr std::size_t kTarIsExtended = 482;
inline constexpr std::size_t kTarRealSize = 483;
// The "is extended" flag in an extension record, after its 21 pairs.
inline constexpr std::size_t kTarExtensionIsExtended = 504;

struct TarRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

struct TarEntry {
  std::string name = {};
  std::string content = {};  // The bytes stored; for type 'S' those of its ranges, concatenated.
  char type = '0';
  std::string link = {};
  // Type 'S' only: the map as written, and the size of the file.
  std::vector<TarRange> ranges = {};
  std::uint64_t apparent_size = 0;
  // Written as the size instead of the length of content.
  std::optional<std::uint64_t> size = {};
  // (offset, bytes) pairs that overwrite parts of the header before the checksum is computed.
  // Offsets count from the start of the entry.
  std::vector<std::pair<std::size_t, std::string>> patches = {};
  // Written instead of the correct checksum; 8 bytes.
  std::optional<std::string> checksum = {};
};

// Returns a number as a field of width bytes: octal digits and a NUL, or base-256 if it needs more
// digits.
std::string TarNumber(std::uint64_t number, std::size_t width = 12);
// Returns a number, which may be negative, as a base-256 field.
std::string TarBase256(std::int64_t number, std::size_t width = 12);

// Returns the entry's header, its extension records and its content, padded to whole records.
std::string TarBytes(const TarEntry& entry);
// Returns the first part of that: everything except the content.
std::string TarHeader(const TarEntry& entry);

// Returns the two records of zeros that end an archive.
std::string TarEnd();

// Returns the entries, one after the other, and TarEnd().
std::string TarArchive(const std::vector<TarEntry>& entries);

// Returns the content of a PAX header, type 'x' or 'g': a line with length, key and value for each
// record.
std::string PaxRecords(const std::vector<std::pair<std::string, std::string>>& records);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_TAR_BUILDER_H_
