// SPDX-License-Identifier: Apache-2.0

#include "src/disk/qcow2_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "src/base/big_endian.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/extents.h"
#include "src/disk/qcow2_layout.h"

namespace msb::disk {
namespace {

using Kind = Qcow2Cluster::Kind;

constexpr std::uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;  // In L1 and standard L2 entries.
constexpr std::uint64_t kCompressedFlag = std::uint64_t{1} << 62;
constexpr std::uint64_t kZeroFlag = 1;

}  // namespace

Qcow2Tables::Qcow2Tables(const Context& ctx, int fd, std::string name, const Qcow2Header& header)
    : fd_(fd), name_(std::move(name)), header_(header), file_size_(base::StampOf(fd).size) {
  ReadL1(ctx);
  CheckL2Offsets();
}

const Qcow2L2Table* Qcow2Tables::FindL2(std::uint64_t index) const {
  const auto found =
      std::lower_bound(l2_tables_.begin(), l2_tables_.end(), index,
                       [](const Qcow2L2Table& table, std::uint64_t i) { return table.index < i; });
  return found == l2_tables_.end() ? nullptr : &*found;
}

void Qcow2Tables::ReadL1(const Context& ctx) {
  constexpr std::uint64_t kPartEntries = 8192;
  const std::uint64_t end = header_.l1_offset + std::uint64_t{header_.l1_entries} * 8;
  ExtentReader extents(ctx, fd_, end, header_.l1_offset);
  std::uint64_t index = 0;
  while (const auto extent = extents.Next()) {
    index = std::max(index, (extent->offset - header_.l1_offset) / 8);
    const std::uint64_t index_end = (extent->end() - header_.l1_offset + 7) / 8;
    while (index < index_end) {
      ctx.Check();
      const auto entries =
          ReadNumbers(header_.l1_offset + index * 8, std::min(kPartEntries, index_end - index));
      for (const std::uint64_t entry : entries) AddL2(index++, entry);
    }
  }
}

void Qcow2Tables::AddL2(std::uint64_t index, std::uint64_t entry) {
  if (entry == 0) return;
  if ((entry & ~kOffsetMask & ~kCopiedFlag) != 0) {
    Damaged(fmt::format("entry {} of the L1 table has reserved bits set", index));
  }
  CheckCluster("an L2 table", entry & kOffsetMask);
  l2_tables_.push_back({index, entry & kOffsetMask, (entry & kCopiedFlag) != 0});
}

// Checks that no L2 table is used twice. Without internal snapshots none is shared. If a table with
// many clusters could be, a small file could describe a disk that takes forever to read.
void Qcow2Tables::CheckL2Offsets() const {
  std::vector<std::uint64_t> offsets;
  offsets.reserve(l2_tables_.size());
  for (const Qcow2L2Table& table : l2_tables_) offsets.push_back(table.offset);
  std::sort(offsets.begin(), offsets.end());
  const auto twice = std::adjacent_find(offsets.begin(), offsets.end());
  if (twice != offsets.end())
    Damaged(fmt::format("the L2 table at offset {} is used twice", *twice));
}

std::vector<std::uint64_t> Qcow2Tables::ReadNumbers(std::uint64_t offset,
                                                    std::uint64_t count) const {
  std::vector<std::uint64_t> numbers(count);
  const auto bytes = std::as_writable_bytes(std::span(numbers));
  const std::uint64_t there =
      offset < file_size_ ? std::min<std::uint64_t>(bytes.size(), file_size_ - offset) : 0;
  base::ReadExactly(fd_, bytes.data(), there, offset);
  for (std::size_t i = 0; i < count; ++i) {
    numbers[i] = base::LoadBigEndian(bytes.subspan(i * 8, 8));
  }
  return numbers;
}

Qcow2Cluster Qcow2Tables::Decode(std::span<const std::uint64_t> entry) const {
  if ((entry[0] & kCompressedFlag) != 0) {
    if (header_.extended_l2 && entry[1] != 0) Damaged("a compressed cluster has subclusters");
    return DecodeCompressed(entry[0]);
  }
  Qcow2Cluster cluster;
  cluster.copied = (entry[0] & kCopiedFlag) != 0;
  cluster.host = entry[0] & kOffsetMask;
  const std::uint64_t flags = entry[0] & ~kOffsetMask & ~kCopiedFlag;
  const bool may_be_zero = header_.version >= 3 && !header_.extended_l2;
  if ((flags & ~(may_be_zero ? kZeroFlag : 0)) != 0) Damaged("an L2 entry has reserved bits set");
  if (cluster.host != 0) CheckCluster("a data cluster", cluster.host);
  if (flags != 0) {
    cluster.kind = Kind::kZero;
  } else if (header_.extended_l2) {
    DecodeSubclusters(entry[1], cluster);
  } else if (cluster.host != 0) {
    cluster.kind = Kind::kData;
  }
  return cluster;
}

void Qcow2Tables::DecodeSubclusters(std::uint64_t bitmaps, Qcow2Cluster& cluster) const {
  cluster.allocated = static_cast<std::uint32_t>(bitmaps);
  cluster.zero = static_cast<std::uint32_t>(bitmaps >> 32);
  if ((cluster.allocated & cluster.zero) != 0) {
    Damaged("an L2 entry marks a subcluster as both data and zeros");
  }
  if (cluster.host == 0 && cluster.allocated != 0) {
    Damaged("an L2 entry has allocated subclusters, but no data cluster");
  }
  if (cluster.host != 0 || cluster.zero != 0) cluster.kind = Kind::kData;
}

Qcow2Cluster Qcow2Tables::DecodeCompressed(std::uint64_t entry) const {
  const unsigned offset_bits = 62 - (header_.cluster_bits - 8);
  Qcow2Cluster cluster{.kind = Kind::kCompressed, .copied = (entry & kCopiedFlag) != 0};
  cluster.host = entry & ((std::uint64_t{1} << offset_bits) - 1);
  const std::uint64_t more_sectors = (entry & (kCompressedFlag - 1)) >> offset_bits;
  cluster.length = (more_sectors + 1) * kSectorBytes - cluster.host % kSectorBytes;
  CheckInFile("a compressed cluster", cluster.host, cluster.length);
  return cluster;
}

void Qcow2Tables::CheckInFile(std::string_view what, std::uint64_t offset,
                              std::uint64_t length) const {
  if (offset < file_size_ && length < file_size_ - offset + header_.cluster_bytes()) return;
  Damaged(fmt::format("{} is at offset {}, outside the file", what, offset));
}

void Qcow2Tables::CheckCluster(std::string_view what, std::uint64_t offset) const {
  if (offset == 0 || offset % header_.cluster_bytes() != 0) {
    Damaged(
        fmt::format("{} is at offset {}, which is 0 or not aligned to a cluster", what, offset));
  }
  CheckInFile(what, offset, header_.cluster_bytes());
}

void Qcow2Tables::Damaged(const std::string& problem) const {
  base::Throw(ErrorKind::kSnapshotIntegrity,
              "qcow2 file '{}' is damaged: {}; replace it with an undamaged copy",
              base::Quoted(name_), problem);
}

}  // namespace msb::disk
