// SPDX-License-Identifier: Apache-2.0
//
// A SparseMap lists the ranges of a file with holes that an archive stores.

#ifndef MSB_SRC_ARCHIVE_SPARSE_MAP_H_
#define MSB_SRC_ARCHIVE_SPARSE_MAP_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "msb/context.h"
#include "src/disk/extents.h"

namespace msb::archive {

// The maximum number of ranges in the map of an entry. Readers hold the map in memory.
inline constexpr std::size_t kMaxSparseRanges = 1 << 18;

struct SparseMap {
  // The ranges are in order and do not touch each other. Each range begins at a multiple of 512
  // bytes, and all ranges but the last end at one.
  std::vector<disk::Extent> ranges;
  std::uint64_t size = 0;  // The size of the file in bytes.

  std::uint64_t StoredBytes() const;
  // Returns false if the file is empty or one range covers all of it.
  bool HasHoles() const { return StoredBytes() < size; }
  // Returns the ranges as tar lists them: if the file ends in a hole, a range of length zero is
  // added at the end of the file.
  std::vector<disk::Extent> Listed() const;
};

// Returns the map of the first size bytes of an open file. If it has more extents than a map may
// have ranges, the smallest holes between them are stored as data.
// Throws kCancelled if ctx ends.
SparseMap MapFile(const Context& ctx, int fd, std::uint64_t size);
// Does the same for a file of size bytes. next returns its extents in order, and nullopt after the
// last one.
SparseMap MapExtents(const std::function<std::optional<disk::Extent>()>& next, std::uint64_t size);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_SPARSE_MAP_H_
