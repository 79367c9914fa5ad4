// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "src/base/space.h"
#include "src/base/throw.h"
#include "src/disk/image_writer.h"
#include "src/disk/qcow2_layout.h"
#include "src/disk/scan.h"
#include "src/disk/sparse_write.h"

namespace msb::disk {
namespace {

// Writes a raw file: the data that is not zeros, at the same offsets as on the disk.
class RawWriter : public RegionConsumer {
 public:
  explicit RawWriter(int fd) : fd_(fd) {}

  void Commit(const Region& region) override {
    for (const Extent& extent : region.data) {
      WriteSparse(fd_, region.bytes.subspan(extent.offset - region.offset, extent.length),
                  extent.offset);
    }
    base::BeginWriteback(fd_, region.offset, kRegionBytes);
  }

 private:
  int fd_;
};

// Writes a qcow2 file: the clusters that are not zeros one after the other behind the header, each
// L2 table after the last cluster that it maps, and then the L1 table and the refcounts.
class Qcow2Writer : public RegionConsumer {
 public:
  Qcow2Writer(int fd, std::uint64_t virtual_size) : fd_(fd), virtual_size_(virtual_size) {}

  void Commit(const Region& region) override {
    const std::uint64_t first = next_;
    std::uint64_t done = region.offset;
    for (const Extent& extent : region.data) {
      const std::uint64_t begin = std::max(done, extent.offset / kClusterBytes * kClusterBytes);
      done = std::max(done, CountOf(extent.end(), kClusterBytes) * kClusterBytes);
      CommitClusters(region, begin, done);
    }
    if (next_ > first) {
      base::BeginWriteback(fd_, first * kClusterBytes, (next_ - first) * kClusterBytes);
    }
  }

  void Finish() {
    WriteL2();
    const std::uint64_t l1_entries = CountOf(virtual_size_, kBytesPerL2);
    const std::uint64_t l1 = next_;
    // The entries that are not in l1_ remain a hole.
    for (const auto& [index, cluster] : l1_) {
      Buffer entry(8);
      entry.Number(0, 8, cluster * kClusterBytes | kCopiedFlag);
      entry.WriteTo(fd_, l1 * kClusterBytes + index * 8);
    }
    next_ += CountOf(l1_entries * 8, kClusterBytes);
    const HeaderFields fields = WriteRefcounts(l1_entries, l1);
    base::Resize(fd_, next_ * kClusterBytes);
    MakeHeader(kHeaderBytes, fields).WriteTo(fd_, 0);
  }

 private:
  // Writes the clusters from begin to end that are not zeros. end may be beyond the end of the
  // disk.
  void CommitClusters(const Region& region, std::uint64_t begin, std::uint64_t end) {
    const auto bytes_of = [&](std::uint64_t offset) {
      const auto rest = region.bytes.subspan(offset - region.offset);
      return rest.first(std::min<std::uint64_t>(rest.size(), kClusterBytes));
    };
    while (begin < end) {
      std::uint64_t row_end = begin;  // End of the clusters that are written at once.
      for (; row_end < end && !IsZero(bytes_of(row_end)); row_end += kClusterBytes) Map(row_end);
      if (row_end > begin) {
        const auto rest = region.bytes.subspan(begin - region.offset);
        const std::uint64_t length = std::min<std::uint64_t>(rest.size(), row_end - begin);
        const std::uint64_t clusters = CountOf(length, kClusterBytes);
        base::WriteExactly(fd_, rest.data(), length, (next_ - clusters) * kClusterBytes);
      }
      begin = row_end + kClusterBytes;
    }
  }

  // Maps the cluster of the disk at offset to the next cluster of the file.
  void Map(std::uint64_t offset) {
    const std::uint64_t l1_index = offset / kBytesPerL2;
    if (l1_index != l1_index_) WriteL2();
    l1_index_ = l1_index;
    l2_.resize(kEntriesPerTable);
    l2_[offset / kClusterBytes % kEntriesPerTable] = next_++ * kClusterBytes | kCopiedFlag;
  }

  // Writes the table in l2_, if there is one. It is complete, since regions come in order.
  void WriteL2() {
    if (l2_.empty()) return;
    Buffer table(kClusterBytes);
    for (std::size_t i = 0; i < l2_.size(); ++i) table.Number(i * 8, 8, l2_[i]);
    l1_.emplace_back(l1_index_, next_);
    table.WriteTo(fd_, next_++ * kClusterBytes);
    l2_.clear();
  }

  // Writes the refcount blocks and the refcount table. Every cluster has a refcount of 1, including
  // those that hold the refcounts.
  HeaderFields WriteRefcounts(std::uint64_t l1_entries, std::uint64_t l1) {
    std::uint64_t blocks = 0;
    std::uint64_t table_clusters = 1;
    const auto total = [&] { return next_ + blocks + table_clusters; };
    while (blocks * kRefcountsPerBlock < total()) {
      ++blocks;
      table_clusters = CountOf(blocks, kEntriesPerTable);
    }
    const std::uint64_t clusters = total();
    const std::uint64_t first_block = next_;
    Buffer table(blocks * 8);
    for (std::uint64_t block = 0; block < blocks; ++block) {
      Buffer counts(kClusterBytes);
      const std::uint64_t begin = block * kRefcountsPerBlock;
      const std::uint64_t used = std::min(clusters - std::min(clusters, begin), kRefcountsPerBlock);
      for (std::uint64_t i = 0; i < used; ++i) counts.Number(i * 2, 2, 1);
      counts.WriteTo(fd_, (first_block + block) * kClusterBytes);
      table.Number(block * 8, 8, (first_block + block) * kClusterBytes);
    }
    const std::uint64_t table_cluster = first_block + blocks;
    table.WriteTo(fd_, table_cluster * kClusterBytes);
    next_ = clusters;
    return {.virtual_size = virtual_size_,
            .l1_entries = l1_entries,
            .l1_offset = l1 * kClusterBytes,
            .refcount_table_offset = table_cluster * kClusterBytes,
            .refcount_table_clusters = table_clusters};
  }

  int fd_;
  std::uint64_t virtual_size_;
  std::uint64_t next_ = 1;  // Next cluster of the file; the first is the header.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> l1_;  // Index and cluster of each L2 table.
  std::uint64_t l1_index_ = 0;                               // L1 index of the table in l2_.
  std::vector<std::uint64_t> l2_;  // The L2 table to write next; empty if there is none.
};

// Returns how many aligned units of this many bytes have data.
std::uint64_t CountData(const Context& ctx, const DiskImage& image, std::uint64_t unit) {
  std::uint64_t count = 0;
  std::uint64_t counted_up_to = 0;  // A number of units.
  std::uint64_t position = 0;
  while (const auto extent = image.NextData(position)) {
    ctx.Check();
    const std::uint64_t end = CountOf(extent->end(), unit);
    count += end - std::max(counted_up_to, extent->offset / unit);
    counted_up_to = end;
    position = extent->end();
  }
  return count;
}

// Returns the space that the complete disk needs if none of its data is zeros.
base::SpaceNeed NeedOf(const Context& ctx, const DiskImage& image, DiskFormat format) {
  constexpr auto kAtMost = base::SpaceNeed::Bound::kAtMost;
  if (format == DiskFormat::kRaw) {
    return {kAtMost, CountData(ctx, image, kHoleBytes) * kHoleBytes};
  }
  const std::uint64_t data = CountData(ctx, image, kClusterBytes);
  const std::uint64_t l1_entries = CountOf(image.size(), kBytesPerL2);
  const std::uint64_t l2 = std::min(data, l1_entries);
  const std::uint64_t l1 = CountOf(l1_entries * 8, kClusterBytes);
  const std::uint64_t clusters = 1 + data + l2 + l1;
  // The refcounts have refcounts too, so there may be one block more.
  const std::uint64_t blocks = CountOf(clusters, kRefcountsPerBlock) + 1;
  return {kAtMost, (clusters + blocks + CountOf(blocks, kEntriesPerTable)) * kClusterBytes};
}

void WriteTo(int fd, const DiskImage& image, DiskFormat format, base::ProgressMeter& meter) {
  if (format == DiskFormat::kRaw) {
    base::Resize(fd, image.size());
    RawWriter writer(fd);
    ScanImage(image, meter, writer);
  } else {
    // A qcow2 disk has complete sectors only.
    const std::uint64_t size = CountOf(image.size(), kSectorBytes) * kSectorBytes;
    if (CountOf(size, kBytesPerL2) > kMaxL1Entries) {
      base::Throw(ErrorKind::kUnsupportedOperation,
                  "a disk of {} bytes is too large for qcow2: write it as raw", size);
    }
    Qcow2Writer writer(fd, size);
    ScanImage(image, meter, writer);
    writer.Finish();
  }
  base::Sync(fd);
}

}  // namespace

void WriteFlat(const Context& ctx, const DiskImage& image, DiskFormat format, int fd) {
  const bool counted = base::ProgressMeter::Wanted(ctx);
  base::ProgressMeter meter(ctx, "flatten", counted ? CountData(ctx, image, 1) : 0);
  ctx.Check();
  base::ReportingSpace(
      fd, [&] { return NeedOf(ctx, image, format); }, [&] { WriteTo(fd, image, format, meter); });
  ctx.Check();
  meter.Finish();
}

}  // namespace msb::disk
