#include "src/disk/qcow2_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "src/base/big_endian.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/inflate.h"

namespace msb::disk {
namespace {

constexpr std::uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;  // Of L1 and standard L2 entries.
constexpr std::uint64_t kCopied = std::uint64_t{1} << 63;
constexpr std::uint64_t kCompressedFlag = std::uint64_t{1} << 62;
constexpr std::uint64_t kZeroFlag = 1;
constexpr std::uint64_t kSubclusters = 32;
constexpr std::uint64_t kSectorBytes = 512;
// Of L2 tables that are kept, bytes.
constexpr std::uint64_t kMaxCachedBytes = 16 << 20;

}  // namespace

Qcow2Image::Qcow2Image(base::UniqueFd fd, std::string name, Qcow2Header header,
                       std::unique_ptr<DiskImage> backing)
    : fd_(std::move(fd)),
      name_(std::move(name)),
      header_(std::move(header)),
      backing_(std::move(backing)),
      file_size_(base::StampOf(fd_.get()).size),
      l2_entries_(header_.cluster_bytes() / (header_.extended_l2 ? 16 : 8)),
      l1_(ReadTable(header_.l1_offset, header_.l1_entries)) {}

void Qcow2Image::Damaged(const std::string& problem) const {
  base::Throw(ErrorKind::kSnapshotIntegrity, "qcow2 file '{}' is damaged: {}", base::Quoted(name_),
              problem);
}

Qcow2Image::Table Qcow2Image::ReadTable(std::uint64_t offset, std::uint64_t entries) const {
  std::vector<std::byte> bytes(entries * 8);
  base::ReadExactly(fd_.get(), bytes.data(), bytes.size(), offset);
  Table table(entries);
  for (std::uint64_t i = 0; i < entries; ++i) {
    table[i] = base::LoadBigEndian(std::span(bytes).subspan(i * 8, 8));
  }
  return table;
}

std::shared_ptr<const Qcow2Image::Table> Qcow2Image::L2Table(std::uint64_t l1_index) const {
  const std::uint64_t entry = l1_[l1_index];
  const std::uint64_t offset = entry & kOffsetMask;
  if ((entry & ~kOffsetMask & ~kCopied) != 0) {
    Damaged(fmt::format("entry {} of the L1 table has reserved bits", l1_index));
  }
  if (offset == 0) return nullptr;
  const std::uint64_t bytes = header_.cluster_bytes();
  if (offset % bytes != 0 || offset > file_size_ || bytes > file_size_ - offset) {
    Damaged(fmt::format("an L2 table is at {}, misaligned or outside of the file", offset));
  }
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = l2_tables_.find(l1_index); found != l2_tables_.end()) {
      return found->second;
    }
  }
  auto table = std::make_shared<const Table>(ReadTable(offset, bytes / 8));
  const std::lock_guard lock(mutex_);
  // Disks are mostly read from the front to the end, so none of the old ones is needed soon.
  if ((l2_tables_.size() + 1) * bytes > kMaxCachedBytes) l2_tables_.clear();
  l2_tables_.insert_or_assign(l1_index, table);
  return table;
}

void Qcow2Image::CheckHost(std::uint64_t host) const {
  if (host % header_.cluster_bytes() == 0 && host < file_size_) return;
  Damaged(fmt::format("a data cluster is at {}, misaligned or outside of the file", host));
}

Qcow2Image::Run Qcow2Image::FindOne(const Table& l2, std::uint64_t offset) const {
  const std::uint64_t cluster = header_.cluster_bytes();
  const std::uint64_t index = offset / cluster % l2_entries_;
  const std::uint64_t entry = l2[header_.extended_l2 ? index * 2 : index];
  const std::uint64_t in_cluster = offset % cluster;
  if ((entry & kCompressedFlag) != 0) {
    return {Kind::kCompressed, cluster - in_cluster, entry & (kCompressedFlag - 1)};
  }
  const std::uint64_t host = entry & kOffsetMask;
  const std::uint64_t flags = entry & ~kOffsetMask & ~kCopied;
  const bool may_be_zero = header_.version >= 3 && !header_.extended_l2;
  if ((flags & ~(may_be_zero ? kZeroFlag : 0)) != 0) Damaged("an L2 entry has reserved bits");
  if (host != 0) CheckHost(host);
  if (!header_.extended_l2) {
    if (flags != 0) return {Kind::kZero, cluster - in_cluster, 0};
    if (host == 0) return {Kind::kBacking, cluster - in_cluster, 0};
    return {Kind::kData, cluster - in_cluster, host + in_cluster};
  }
  const std::uint64_t bitmap = l2[index * 2 + 1];
  const std::uint64_t allocated = bitmap & 0xffff'ffff;
  const std::uint64_t zero = bitmap >> 32;
  if ((allocated & zero) != 0 || (host == 0 && allocated != 0)) {
    Damaged("an L2 entry has a bitmap that cannot be");
  }
  const std::uint64_t subcluster = cluster / kSubclusters;
  const std::uint64_t bit = in_cluster / subcluster;
  const std::uint64_t length = subcluster - in_cluster % subcluster;
  if ((zero >> bit & 1) != 0) return {Kind::kZero, length, 0};
  if ((allocated >> bit & 1) != 0) return {Kind::kData, length, host + in_cluster};
  return {Kind::kBacking, length, 0};
}

Qcow2Image::Run Qcow2Image::Find(std::uint64_t offset, std::uint64_t limit) const {
  const std::uint64_t l2_bytes = l2_entries_ << header_.cluster_bits;
  const std::uint64_t l1_index = offset / l2_bytes;
  const std::uint64_t end = std::min(limit, l2_bytes - offset % l2_bytes);
  const auto l2 = L2Table(l1_index);
  if (!l2) return {Kind::kBacking, end, 0};
  Run run = FindOne(*l2, offset);
  while (run.length < end && run.kind != Kind::kCompressed) {
    const Run next = FindOne(*l2, offset + run.length);
    if (next.kind != run.kind) break;
    if (run.kind == Kind::kData && next.host != run.host + run.length) break;
    run.length += next.length;
  }
  run.length = std::min(run.length, end);
  return run;
}

std::optional<Extent> Qcow2Image::NextData(std::uint64_t offset) const {
  std::optional<Extent> found;
  const auto add = [&](Extent extent) {
    if (found && found->end() != extent.offset) return false;
    found = found ? Extent{found->offset, found->length + extent.length} : extent;
    return true;
  };
  while (offset < size()) {
    const Run run = Find(offset, size() - offset);
    const std::uint64_t end = offset + run.length;
    if (run.kind == Kind::kData || run.kind == Kind::kCompressed) {
      if (!add({offset, run.length})) return found;
    } else if (run.kind == Kind::kBacking && backing_) {
      for (std::uint64_t position = offset; position < end;) {
        const auto below = backing_->NextData(position);
        if (!below || below->offset >= end) break;
        if (!add({below->offset, std::min(below->end(), end) - below->offset})) return found;
        position = below->end();
      }
    }
    if (found && found->end() != end) return found;
    offset = end;
  }
  return found;
}

void Qcow2Image::Read(std::span<std::byte> bytes, std::uint64_t offset) const {
  while (!bytes.empty()) {
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
      return ReadCompressed(run.host, bytes, offset % header_.cluster_bytes());
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

// The last cluster of a file may be there in part.
void Qcow2Image::ReadHost(std::span<std::byte> bytes, std::uint64_t host) const {
  const std::uint64_t there =
      host < file_size_ ? std::min<std::uint64_t>(bytes.size(), file_size_ - host) : 0;
  base::ReadExactly(fd_.get(), bytes.data(), there, host);
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(there), bytes.end(), std::byte{0});
}

void Qcow2Image::ReadCompressed(std::uint64_t descriptor, std::span<std::byte> bytes,
                                std::uint64_t offset_in_cluster) const {
  const unsigned offset_bits = 62 - (header_.cluster_bits - 8);
  const std::uint64_t host = descriptor & ((std::uint64_t{1} << offset_bits) - 1);
  const std::uint64_t sectors = (descriptor >> offset_bits) + 1;
  const std::uint64_t length = sectors * kSectorBytes - host % kSectorBytes;
  if (host >= file_size_)
    Damaged(fmt::format("a compressed cluster is at {}, outside of it", host));
  std::vector<std::byte> packed(std::min(length, file_size_ - host));
  base::ReadExactly(fd_.get(), packed.data(), packed.size(), host);
  std::vector<std::byte> unpacked(header_.cluster_bytes());
  if (!Inflate(header_.compression, packed, unpacked)) {
    Damaged(fmt::format("the compressed cluster at {} cannot be unpacked", host));
  }
  std::copy_n(unpacked.begin() + static_cast<std::ptrdiff_t>(offset_in_cluster), bytes.size(),
              bytes.begin());
}

}  // namespace msb::disk
