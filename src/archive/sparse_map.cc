// SPDX-License-Identifier: Apache-2.0

#include "src/archive/sparse_map.h"

#include <algorithm>
#include <numeric>

#include "src/archive/tar_format.h"

namespace msb::archive {
namespace {

using disk::Extent;

// Collects ranges. Fills holes up to a limit, that is, treats them as data; the limit grows when
// there are too many ranges.
class RangeCollector {
 public:
  void Add(const Extent& range) {
    if (!Merge(ranges_, range)) {
      // One range is reserved for the end of a trailing hole.
      if (ranges_.size() == kMaxSparseRanges - 1) Thin();
      if (!Merge(ranges_, range)) ranges_.push_back(range);
    }
  }
  std::vector<Extent> Take() { return std::move(ranges_); }

 private:
  bool Merge(std::vector<Extent>& ranges, const Extent& range) const {
    if (ranges.empty() || range.offset > ranges.back().end() + filled_hole_) return false;
    ranges.back().length = std::max(range.end(), ranges.back().end()) - ranges.back().offset;
    return true;
  }

  // Fills the smaller half of the holes. Among the holes of the median size, it fills only as
  // many as that half needs; otherwise a file whose holes are all of one size would lose them all.
  void Thin() {
    std::vector<std::uint64_t> holes;
    for (std::size_t i = 1; i < ranges_.size(); ++i) {
      holes.push_back(ranges_[i].offset - ranges_[i - 1].end());
    }
    const auto half = holes.begin() + static_cast<std::ptrdiff_t>(holes.size() / 2);
    std::nth_element(holes.begin(), half, holes.end());
    auto ties = std::count(holes.begin(), half, *half);
    filled_hole_ = *half - 1;
    std::vector<Extent> kept;
    for (const Extent& range : ranges_) {
      if (Merge(kept, range)) continue;
      if (!kept.empty() && ties > 0 && range.offset - kept.back().end() == *half) {
        kept.back().length = range.end() - kept.back().offset;
        --ties;
      } else {
        kept.push_back(range);
      }
    }
    ranges_ = std::move(kept);
  }

  std::uint64_t filled_hole_ = 0;  // Holes up to this many bytes are filled.
  std::vector<Extent> ranges_;
};

}  // namespace

std::uint64_t SparseMap::StoredBytes() const {
  return std::accumulate(ranges.begin(), ranges.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const Extent& range) { return sum + range.length; });
}

std::vector<Extent> SparseMap::Listed() const {
  std::vector<Extent> listed = ranges;
  if (size > 0 && (listed.empty() || listed.back().end() < size)) listed.push_back({size, 0});
  return listed;
}

SparseMap MapFile(const Context& ctx, int fd, std::uint64_t size) {
  disk::ExtentReader extents(ctx, fd, size);
  return MapExtents([&extents] { return extents.Next(); }, size);
}

SparseMap MapExtents(const std::function<std::optional<Extent>()>& next, std::uint64_t size) {
  RangeCollector collector;
  while (const auto extent = next()) {
    const std::uint64_t start = extent->offset / kTarRecordBytes * kTarRecordBytes;
    const std::uint64_t end = PaddedToTarRecord(extent->end());
    collector.Add({start, std::min(end, size) - start});
  }
  return {collector.Take(), size};
}

}  // namespace msb::archive
