// SPDX-License-Identifier: Apache-2.0

#include "src/disk/qcow2_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "src/disk/inflate.h"

namespace msb::disk {
namespace {

constexpr std::uint64_t kSubclusters = 32;
// The number of bytes of an L2 table to read at once: large tables are not read completely for the
// few entries that are needed.
constexpr std::uint64_t kPartBytes = 64 << 10;

// Appends more to extent if it touches its end. Returns false if extent is complete.
bool Append(std::optional<Extent>& extent, const Extent& more) {
  if (extent && (extent->end() != more.offset || extent->length >= kLongExtent)) return false;
  extent = extent ? Extent{extent->offset, extent->length + more.length} : more;
  return true;
}

}  // namespace

Qcow2Image::Qcow2Image(Context ctx, base::UniqueFd fd, std::string name, Qcow2Header header,
                       std::unique_ptr<DiskImage> backing, std::shared_ptr<TableCache> cache)
    : ctx_(std::move(ctx)),
      fd_(std::move(fd)),
      header_(std::move(header)),
      backing_(std::move(backing)),
      cache_(std::move(cache)),
      tables_(ctx_, fd_.get(), std::move(name), header_) {}

TableCache::Part Qcow2Image::ReadPart(std::uint64_t offset, std::uint64_t end) const {
  const TableCache::Key key(this, offset);
  if (auto part = cache_->Find(key)) return part;
  const std::uint64_t entry_bytes = tables_.entry_numbers() * 8;
  const std::uint64_t part_end = std::min(offset + kPartBytes, end);
  TablePart part;
  // Skip holes, so that the time for a sparse file depends on its data only.
  const std::uint64_t data =
      ExtentReader(ctx_, fd_.get(), end, offset).Next().value_or(Extent{end}).offset;
  if (data >= part_end) {
    part.entries = (data - offset) / entry_bytes;
  } else {
    part.entries = (part_end - offset) / entry_bytes;
    part.numbers = tables_.ReadNumbers(offset, (part_end - offset) / 8);
  }
  auto shared = std::make_shared<const TablePart>(std::move(part));
  cache_->Insert(key, shared);
  return shared;
}

Qcow2Image::Run Qcow2Image::FindOne(std::span<const std::uint64_t> entry,
                                    std::uint64_t offset) const {
  const std::uint64_t cluster_bytes = header_.cluster_bytes();
  const std::uint64_t in_cluster = offset % cluster_bytes;
  const std::uint64_t rest = cluster_bytes - in_cluster;
  const Qcow2Cluster cluster = tables_.Decode(entry);
  switch (cluster.kind) {
    case Qcow2Cluster::Kind::kUnallocated:
      return {Kind::kBacking, rest};
    case Qcow2Cluster::Kind::kZero:
      return {Kind::kZero, rest};
    case Qcow2Cluster::Kind::kCompressed:
      return {Kind::kCompressed, rest, cluster.host, cluster.length};
    case Qcow2Cluster::Kind::kData:
      break;
  }
  if (!header_.extended_l2) return {Kind::kData, rest, cluster.host + in_cluster};
  const std::uint64_t subcluster_bytes = cluster_bytes / kSubclusters;
  const std::uint64_t bit = in_cluster / subcluster_bytes;
  const std::uint64_t length = subcluster_bytes - in_cluster % subcluster_bytes;
  if ((cluster.zero >> bit & 1) != 0) return {Kind::kZero, length};
  if ((cluster.allocated >> bit & 1) == 0) return {Kind::kBacking, length};
  return {Kind::kData, length, cluster.host + in_cluster};
}

Qcow2Image::Run Qcow2Image::Find(std::uint64_t offset, std::uint64_t limit) const {
  const std::uint64_t entry_numbers = tables_.entry_numbers();
  const std::uint64_t bits = header_.cluster_bits;
  const std::uint64_t table_clusters = header_.cluster_bytes() / (entry_numbers * 8);
  const std::uint64_t index = (offset >> bits) % table_clusters;
  const std::uint64_t l1_index = (offset >> bits) / table_clusters;
  const std::uint64_t in_cluster = offset % header_.cluster_bytes();
  const Qcow2L2Table* l2 = tables_.FindL2(l1_index);
  if (l2 == nullptr) return {Kind::kBacking, limit};
  if (l2->index > l1_index) {
    const std::uint64_t clusters = (l2->index - l1_index) * table_clusters - index;
    return {Kind::kBacking, std::min((clusters << bits) - in_cluster, limit)};
  }
  const std::uint64_t table = l2->offset;
  const std::uint64_t part_entries = std::min(kPartBytes / (entry_numbers * 8), table_clusters);
  const std::uint64_t first = index / part_entries * part_entries;
  const auto part = ReadPart(table + first * entry_numbers * 8, table + header_.cluster_bytes());
  // A part that is a hole may cover more than its share, up to where data begins, but never less.
  std::uint64_t end = std::min(((part->entries - (index - first)) << bits) - in_cluster, limit);
  if (part->numbers.empty()) return {Kind::kBacking, end};
  const auto find_one = [&](std::uint64_t at) {
    const std::uint64_t entry = (at >> bits) % table_clusters - first;
    return FindOne(std::span(part->numbers).subspan(entry * entry_numbers, entry_numbers), at);
  };
  Run run = find_one(offset);
  while (run.length < end && run.kind != Kind::kCompressed) {
    const Run next = find_one(offset + run.length);
    if (next.kind != run.kind) break;
    if (run.kind == Kind::kData && next.host != run.host + run.length) break;
    run.length += next.length;
  }
  run.length = std::min(run.length, end);
  return run;
}

std::optional<Extent> Qcow2Image::FindData(std::uint64_t offset, std::uint64_t end) const {
  std::optional<Extent> found;
  for (end = std::min(end, size()); offset < end;) {
    ctx_.Check();  // The tables of a large disk without data are large, too.
    const Run run = Find(offset, end - offset);
    const std::uint64_t run_end = offset + run.length;
    if (run.kind == Kind::kData || run.kind == Kind::kCompressed) {
      if (!Append(found, {offset, run.length})) return found;
    }
    // Asking the backing file only to join two extents would double the work with each file of a
    // chain.
    if (run.kind == Kind::kBacking && found) return found;
    if (run.kind == Kind::kBacking && backing_) {
      if (auto below = backing_->FindData(offset, run_end)) return below;
    }
    if (found && found->end() != run_end) return found;
    offset = run_end;
  }
  return found;
}

void Qcow2Image::Read(std::span<std::byte> bytes, std::uint64_t offset) const {
  while (!bytes.empty()) {
    ctx_.Check();  // With small clusters, each byte may have to be looked for in many files.
    const Run run = Find(offset, bytes.size());
    ReadRun(run, bytes.first(run.length), offset);
    bytes = bytes.subspan(run.length);
    offset += run.length;
  }
}

void Qcow2Image::ReadRun(const Run& run, std::span<std::byte> bytes, std::uint64_t offset) const {
  switch (run.kind) {
    case Kind::kBacking:
      return ReadBacking(bytes, offset);
    case Kind::kZero:
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
      return;
    case Kind::kData:
      return ReadHost(bytes, run.host);
    case Kind::kCompressed:
      return ReadCompressed(run, bytes, offset % header_.cluster_bytes());
  }
}

void Qcow2Image::ReadBacking(std::span<std::byte> bytes, std::uint64_t offset) const {
  std::uint64_t there = 0;
  if (backing_ && offset < backing_->size()) {
    there = std::min<std::uint64_t>(bytes.size(), backing_->size() - offset);
    backing_->Read(bytes.first(there), offset);
  }
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(there), bytes.end(), std::byte{0});
}

// Reads bytes of the file. The last cluster of a file may be incomplete; the rest of it reads as
// zeros.
void Qcow2Image::ReadHost(std::span<std::byte> bytes, std::uint64_t host) const {
  const std::uint64_t file_size = tables_.file_size();
  const std::uint64_t there =
      host < file_size ? std::min<std::uint64_t>(bytes.size(), file_size - host) : 0;
  base::ReadExactly(fd_.get(), bytes.data(), there, host);
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(there), bytes.end(), std::byte{0});
}

void Qcow2Image::ReadCompressed(const Run& run, std::span<std::byte> bytes,
                                std::uint64_t offset_in_cluster) const {
  std::vector<std::byte> packed(std::min(run.packed, tables_.file_size() - run.host));
  base::ReadExactly(fd_.get(), packed.data(), packed.size(), run.host);
  const auto unpack = [&](std::span<std::byte> cluster) {
    if (Inflate(header_.compression, packed, cluster)) return;
    tables_.Damaged(
        fmt::format("the compressed cluster at offset {} cannot be decompressed", run.host));
  };
  if (bytes.size() == header_.cluster_bytes()) return unpack(bytes);
  std::vector<std::byte> cluster(header_.cluster_bytes());
  unpack(cluster);
  std::copy_n(cluster.begin() + static_cast<std::ptrdiff_t>(offset_in_cluster), bytes.size(),
              bytes.begin());
}

}  // namespace msb::disk
