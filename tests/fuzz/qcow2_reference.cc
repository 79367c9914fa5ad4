// SPDX-License-Identifier: Apache-2.0

#include "tests/fuzz/qcow2_reference.h"

#include <algorithm>
#include <map>
#include <span>

#include "src/base/big_endian.h"
#include "src/base/file.h"
#include "src/disk/inflate.h"
#include "tests/fuzz/properties.h"

namespace msb::fuzz {
namespace {

using disk::Qcow2Cluster;

constexpr std::uint64_t kSectorBytes = 512;
constexpr std::uint64_t kSubclusters = 32;

// Counts how often each cluster of a file is used.
class Uses {
 public:
  explicit Uses(unsigned cluster_bits) : cluster_bits_(cluster_bits) {}

  // Adds clusters that may be used only once.
  void Add(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t end = offset + length;
    for (std::uint64_t at = offset; at < end; at += std::uint64_t{1} << cluster_bits_) {
      Require(alone_.emplace(at >> cluster_bits_, 1).second, "no cluster is used twice");
    }
  }
  void AddPacked(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t last = (offset + length - 1) >> cluster_bits_;
    for (std::uint64_t i = offset >> cluster_bits_; i <= last; ++i) ++packed_[i];
  }

  using Counts = std::map<std::uint64_t, std::uint64_t>;
  const Counts& packed() const { return packed_; }
  Counts All() const {
    Counts all = alone_;
    for (const auto& use : packed_) {
      Require(all.insert(use).second, "only compressed clusters share one");
    }
    return all;
  }

 private:
  const unsigned cluster_bits_;
  Counts alone_;
  Counts packed_;
};

}  // namespace

Qcow2Reference::Qcow2Reference(int fd, const disk::Qcow2Header& header, std::string_view backing)
    : fd_(fd),
      header_(header),
      tables_(Context::Background(), fd, std::string(kOrigin), header),
      refcount_table_(tables_.ReadNumbers(
          header.refcount_table_offset,
          (std::uint64_t{header.refcount_table_clusters} << header.cluster_bits) / 8)),
      backing_(backing) {}

Qcow2Reference::Sector Qcow2Reference::Read(std::uint64_t offset) {
  const Sector nothing{Source::kNothing, std::string(kSectorBytes, '\0')};
  Sector below = nothing;
  if (offset < backing_.size()) {
    below = {Source::kBacking, std::string(backing_.substr(offset, kSectorBytes))};
    below.bytes.resize(kSectorBytes);
  }
  const std::uint64_t entries = header_.cluster_bytes() / 8 / tables_.entry_numbers();
  const std::uint64_t l1_index = (offset >> header_.cluster_bits) / entries;
  const disk::Qcow2L2Table* table = tables_.FindL2(l1_index);
  if (table == nullptr || table->index != l1_index) return below;
  const Qcow2Cluster cluster = Find(table->offset, offset);
  const std::uint64_t in_cluster = offset % header_.cluster_bytes();
  switch (cluster.kind) {
    case Qcow2Cluster::Kind::kUnallocated:
      return below;
    case Qcow2Cluster::Kind::kZero:
      return nothing;
    case Qcow2Cluster::Kind::kCompressed:
      return {Source::kFile, ReadCompressed(cluster, in_cluster)};
    case Qcow2Cluster::Kind::kData:
      break;
  }
  if (header_.extended_l2) {
    const std::uint64_t bit = in_cluster / (header_.cluster_bytes() / kSubclusters);
    if ((cluster.zero >> bit & 1) != 0) return nothing;
    if ((cluster.allocated >> bit & 1) == 0) return below;
  }
  return {Source::kFile, ReadHost(cluster.host + in_cluster, kSectorBytes)};
}

bool Qcow2Reference::CheckUses() const {
  const std::uint64_t refcount_bytes = refcount_table_.size() * 8;
  Uses uses(header_.cluster_bits);
  uses.Add(0, header_.cluster_bytes());
  uses.Add(header_.l1_offset, std::uint64_t{header_.l1_entries} * 8);
  uses.Add(header_.refcount_table_offset, refcount_bytes);
  for (const std::uint64_t block : refcount_table_) {
    if (block != 0) uses.Add(block, header_.cluster_bytes());
  }
  const auto add_cluster = [&](std::uint64_t offset, bool copied) {
    uses.Add(offset, header_.cluster_bytes());
    const bool alone = RefcountOf(offset >> header_.cluster_bits) == 1;
    Require(copied == alone, "what is marked is the only reference");
  };
  for (const disk::Qcow2L2Table& table : tables_.l2_tables()) {
    add_cluster(table.offset, table.copied);
    const auto numbers = tables_.ReadNumbers(table.offset, header_.cluster_bytes() / 8);
    for (std::uint64_t at = 0; at < numbers.size(); at += tables_.entry_numbers()) {
      if (numbers[at] == 0) continue;
      const Qcow2Cluster cluster = Decode(std::span(numbers).subspan(at));
      if (cluster.kind == Qcow2Cluster::Kind::kCompressed) {
        uses.AddPacked(cluster.host, cluster.length);
      } else if (cluster.host != 0) {
        add_cluster(cluster.host, cluster.copied);
      }
    }
  }
  for (const auto& [cluster, references] : uses.All()) {
    Require(RefcountOf(cluster) >= references, "no cluster is counted too low");
  }
  return !uses.packed().empty();
}

Qcow2Cluster Qcow2Reference::Find(std::uint64_t l2_offset, std::uint64_t offset) const {
  const std::uint64_t step = tables_.entry_numbers();
  const std::uint64_t index =
      (offset >> header_.cluster_bits) % (header_.cluster_bytes() / 8 / step);
  return Decode(tables_.ReadNumbers(l2_offset + index * step * 8, step));
}

Qcow2Cluster Qcow2Reference::Decode(std::span<const std::uint64_t> numbers) const {
  const Qcow2Cluster cluster = tables_.Decode(numbers.first(tables_.entry_numbers()));
  Require(cluster.host == 0 || cluster.host < tables_.file_size(), "clusters are in the file");
  Require(cluster.kind == Qcow2Cluster::Kind::kCompressed ||
              cluster.host % header_.cluster_bytes() == 0,
          "clusters are where clusters may be");
  Require((cluster.allocated & cluster.zero) == 0, "subclusters are data or zeros");
  return cluster;
}

std::uint64_t Qcow2Reference::RefcountOf(std::uint64_t cluster) const {
  const unsigned bits = 1U << header_.refcount_order;
  const std::uint64_t per_block = header_.cluster_bytes() * 8 / bits;
  if (cluster / per_block >= refcount_table_.size()) return 0;
  const std::uint64_t block = refcount_table_[cluster / per_block];
  if (block == 0) return 0;
  const std::uint64_t bit = cluster % per_block * bits;
  const std::string bytes = ReadHost(block + bit / 8, std::max(bits / 8, 1U));
  const std::uint64_t number = base::LoadBigEndian(std::as_bytes(std::span(bytes)));
  // If several refcounts share a byte, the first is in its lowest bits.
  return bits >= 8 ? number : number >> bit % 8 & ((1U << bits) - 1);
}

// Reads from the file, and zeros from beyond its end.
std::string Qcow2Reference::ReadHost(std::uint64_t host, std::uint64_t length) const {
  std::string bytes(length, '\0');
  const std::uint64_t size = tables_.file_size();
  base::ReadExactly(fd_, bytes.data(), std::min(length, size - std::min(size, host)), host);
  return bytes;
}

std::string Qcow2Reference::ReadCompressed(const Qcow2Cluster& cluster, std::uint64_t in_cluster) {
  if (cluster.host != unpacked_host_ || cluster.length != unpacked_length_) {
    const std::string packed =
        ReadHost(cluster.host, std::min(cluster.length, tables_.file_size() - cluster.host));
    std::string unpacked(header_.cluster_bytes(), '\0');
    if (!disk::Inflate(header_.compression, std::as_bytes(std::span(packed)),
                       std::as_writable_bytes(std::span(unpacked)))) {
      tables_.Damaged("what is compressed is damaged");
    }
    unpacked_ = std::move(unpacked);
    unpacked_host_ = cluster.host;
    unpacked_length_ = cluster.length;
  }
  return unpacked_.substr(in_cluster, kSectorBytes);
}

}  // namespace msb::fuzz
