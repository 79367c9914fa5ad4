// Takes tar archives apart and puts them together again, so that a mutation of one part leaves the
// others readable.

#ifndef MSB_TESTS_FUZZ_TAR_PARTS_H_
#define MSB_TESTS_FUZZ_TAR_PARTS_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/disk/extents.h"

namespace msb::fuzz {

struct TarPart {
  std::string header;   // Its record and the records that extend a sparse map.
  std::string content;  // What the entry stores, without padding.

  // As the header record has it, without what may be in its prefix field.
  std::string Name() const;
  bool IsSparse() const;
  // Of the file, holes included.
  std::uint64_t FileSize() const;
  // The map of a sparse entry; empty for others.
  std::vector<disk::Extent> Ranges() const;
};

// The entries, which are where "ustar" is: also those that a mutation has moved. A content that is
// longer or shorter than its header says keeps its padding, and so gets another size.
std::vector<TarPart> SplitTar(std::string_view archive);

// The archive of these parts, each with its right size and checksum.
std::string JoinTar(const std::vector<TarPart>& parts);

// Gives every header record where one may be its right checksum.
void MendChecksums(std::span<std::uint8_t> archive);

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_TAR_PARTS_H_
