// SPDX-License-Identifier: Apache-2.0
//
// Splits tar archives and joins them again, so that a mutation of one part leaves the other parts
// readable.

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
  std::string header;   // The header record, and the records that extend a sparse map.
  std::string content;  // The bytes that the entry stores, without padding.

  // Returns the name in the header record, without its prefix field.
  std::string Name() const;
  bool IsSparse() const;
  // Returns the size of the file, holes included.
  std::uint64_t FileSize() const;
  // Returns the map of a sparse entry, or nothing for another entry.
  std::vector<disk::Extent> Ranges() const;
};

// Returns the entries. Each begins where its "ustar" is, even if a mutation has moved that. Content
// that is longer or shorter than its header says keeps its padding, and therefore gets another
// size.
std::vector<TarPart> SplitTar(std::string_view archive);

// Returns the archive of these parts. Each header has the correct size and checksum.
std::string JoinTar(const std::vector<TarPart>& parts);

// Corrects the checksum of each header record at a multiple of the record size.
void MendChecksums(std::span<std::uint8_t> archive);

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_TAR_PARTS_H_
