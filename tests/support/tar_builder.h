// Builds tar streams byte by byte, sound ones and ones that no tar would write.

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

// Where the fields of a header record are that tests damage.
inline constexpr std::size_t kTarSizeField = 124;
inline constexpr std::size_t kTarChecksumField = 148;
inline constexpr std::size_t kTarMagicField = 257;
// Of type 'S': the first of four (offset, length) pairs of 12 bytes each, then what follows them.
inline constexpr std::size_t kTarSparseMap = 386;
inline constexpr std::size_t kTarIsExtended = 482;
inline constexpr std::size_t kTarRealSize = 483;
// The same flag in an extension record, behind its 21 pairs.
inline constexpr std::size_t kTarExtensionIsExtended = 504;

struct TarRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

struct TarEntry {
  std::string name = {};
  std::string content = {};  // The bytes it stores: of type 'S' those of its ranges, in a row.
  char type = '0';
  std::string link = {};
  // Of type 'S' only: the map as it is written, and the length of the file.
  std::vector<TarRange> ranges = {};
  std::uint64_t apparent_size = 0;
  // Instead of the length of content.
  std::optional<std::uint64_t> size = {};
  // Bytes to write over those at an offset from the start of the entry, before the checksum is
  // computed.
  std::vector<std::pair<std::size_t, std::string>> patches = {};
  // Instead of the right one, 8 bytes.
  std::optional<std::string> checksum = {};
};

// A number as a field of width bytes: octal digits and a NUL, or base-256 where those do not reach.
std::string TarNumber(std::uint64_t number, std::size_t width = 12);
// The base-256 form, also of negative numbers.
std::string TarBase256(std::int64_t number, std::size_t width = 12);

// The entry's header, its extension records, and its content up to the next record.
std::string TarBytes(const TarEntry& entry);
// The first bytes of that: all but the content.
std::string TarHeader(const TarEntry& entry);

// The two records of zeros that end an archive.
std::string TarEnd();

// The entries one after the other, and TarEnd().
std::string TarArchive(const std::vector<TarEntry>& entries);

// The content of a PAX header, type 'x' or 'g': each key and value with its length in front.
std::string PaxRecords(const std::vector<std::pair<std::string, std::string>>& records);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_TAR_BUILDER_H_
