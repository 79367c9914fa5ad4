// Which bytes of a file with holes an archive carries.

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

// The most ranges that the map of an entry may have. Readers hold the map in memory.
inline constexpr std::size_t kMaxSparseRanges = 1 << 18;

struct SparseMap {
  // In order, apart from each other, each beginning at a multiple of 512 bytes; only the last may
  // have a length that is none.
  std::vector<disk::Extent> ranges;
  std::uint64_t size = 0;  // Of the file, bytes.

  std::uint64_t StoredBytes() const;
  // False for a file that one range fills, and for an empty one.
  bool HasHoles() const { return StoredBytes() < size; }
  // The ranges as tar lists them: a trailing hole is ended by one of length zero.
  std::vector<disk::Extent> Listed() const;
};

// The map of the first size bytes of an open file. Where it has more extents than a map may have
// ranges, the smallest holes between them are taken for data.
SparseMap MapFile(const Context& ctx, int fd, std::uint64_t size);
// The same for a file of size bytes with the extents that next gives, in order, none at the end.
SparseMap MapExtents(const Context& ctx, const std::function<std::optional<disk::Extent>()>& next,
                     std::uint64_t size);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_SPARSE_MAP_H_
