// SPDX-License-Identifier: Apache-2.0

#include "src/disk/qcow2_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/base/big_endian.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/convert_command.h"
#include "src/disk/extents.h"
#include "src/disk/qcow2_tables.h"

namespace msb::disk {
namespace {

// The use of a cluster of the file. Values up to kMaxPacked count the compressed clusters that have
// a part in it; only compressed clusters may share a cluster.
using Use = std::uint16_t;
constexpr Use kNothing = 0;
constexpr Use kMaxPacked = 0xfffc;
constexpr Use kTable = 0xfffd;      // Metadata; no flag says whether this is the only reference.
constexpr Use kCopied = 0xfffe;     // Marked as the only reference.
constexpr Use kNotCopied = 0xffff;  // Not marked so: it must be copied before it is written to.

// The number of uses in memory at the same time. The tables of a file with more clusters are read
// again for each part of this size.
constexpr std::uint64_t kMaxUses = 16 << 20;
constexpr std::uint64_t kMaxClusters = std::numeric_limits<std::int32_t>::max();

constexpr std::uint64_t kRefcountOffsetMask = ~std::uint64_t{511};

class Checker {
 public:
  Checker(const Context& ctx, int fd, std::string_view name, const Qcow2Header& header)
      : ctx_(ctx), fd_(fd), header_(header), tables_(ctx, fd, std::string(name), header) {
    // The last cluster may be incomplete, and a table may extend beyond it by less than a cluster.
    clusters_ = (tables_.file_size() >> header_.cluster_bits) + 2;
    if (clusters_ > kMaxClusters) {
      base::Throw(ErrorKind::kUnsupportedOperation,
                  "qcow2 file '{}' has {} clusters, but at most {} are supported: to convert it, "
                  "run {} -o cluster_size=2M",
                  base::Quoted(name), clusters_, kMaxClusters, ConvertCommand(name));
    }
  }

  void Check() {
    const std::uint64_t table_bytes = std::uint64_t{header_.refcount_table_clusters}
                                      << header_.cluster_bits;
    refcount_table_ = tables_.ReadNumbers(header_.refcount_table_offset, table_bytes / 8);
    FindFilledL2();
    for (first_ = 0; first_ < clusters_; first_ += kMaxUses) {
      uses_.assign(std::min(kMaxUses, clusters_ - first_), kNothing);
      Mark("the header", 0, header_.cluster_bytes(), kTable);
      MarkRefcounts(table_bytes);
      MarkDisk();
      CompareRefcounts();
    }
  }

 private:
  void MarkRefcounts(std::uint64_t table_bytes) {
    Mark("the refcount table", header_.refcount_table_offset, table_bytes, kTable);
    for (const std::uint64_t entry : refcount_table_) {
      if (entry == 0) continue;
      if ((entry & ~kRefcountOffsetMask) != 0) {
        tables_.Damaged("the refcount table has reserved bits set");
      }
      MarkCluster("a refcount block", entry, kTable);
    }
  }

  void MarkDisk() {
    Mark("the L1 table", header_.l1_offset, std::uint64_t{header_.l1_entries} * 8, kTable);
    ctx_.Check();
    for (const Qcow2L2Table& table : tables_.l2_tables()) {
      MarkCluster("an L2 table", table.offset, table.copied ? kCopied : kNotCopied);
    }
    for (const std::uint64_t offset : filled_l2_) MarkL2(offset);
  }

  // Finds the L2 tables that are not holes: a hole is an empty table, and a sparse file may have
  // many.
  void FindFilledL2() {
    for (const Qcow2L2Table& table : tables_.l2_tables()) {
      const std::uint64_t end = table.offset + header_.cluster_bytes();
      if (ExtentReader(ctx_, fd_, end, table.offset).Next()) filled_l2_.push_back(table.offset);
    }
  }

  void MarkL2(std::uint64_t offset) {
    ctx_.Check();
    const auto numbers = tables_.ReadNumbers(offset, header_.cluster_bytes() / 8);
    const std::uint64_t step = tables_.entry_numbers();
    for (std::uint64_t i = 0; i < numbers.size(); i += step) {
      const Qcow2Cluster cluster = tables_.Decode(std::span(numbers).subspan(i, step));
      if (cluster.kind == Qcow2Cluster::Kind::kCompressed) {
        if (cluster.copied) tables_.Damaged("a compressed cluster is marked as not shared");
        MarkPacked(cluster);
      } else if (cluster.host != 0) {
        MarkCluster("a data cluster", cluster.host, cluster.copied ? kCopied : kNotCopied);
      }
    }
  }

  // Returns the use of a cluster; null if it is not among those in memory.
  Use* UseOf(std::uint64_t cluster) {
    return cluster - first_ < uses_.size() ? &uses_[cluster - first_] : nullptr;
  }

  void Mark(std::string_view what, std::uint64_t offset, std::uint64_t length, Use as) {
    if (length == 0) return;
    tables_.CheckInFile(what, offset, length);
    const std::uint64_t last = (offset + length - 1) >> header_.cluster_bits;
    for (std::uint64_t cluster = offset >> header_.cluster_bits; cluster <= last; ++cluster) {
      Use* use = UseOf(cluster);
      if (use == nullptr) continue;
      if (*use != kNothing) Shared(cluster);
      *use = as;
    }
  }

  void MarkCluster(std::string_view what, std::uint64_t offset, Use as) {
    tables_.CheckCluster(what, offset);
    Mark(what, offset, header_.cluster_bytes(), as);
  }

  void MarkPacked(const Qcow2Cluster& packed) {
    const std::uint64_t last = (packed.host + packed.length - 1) >> header_.cluster_bits;
    for (std::uint64_t cluster = packed.host >> header_.cluster_bits; cluster <= last; ++cluster) {
      Use* use = UseOf(cluster);
      if (use == nullptr) continue;
      if (*use >= kMaxPacked) Shared(cluster);
      ++*use;
    }
  }

  void CompareRefcounts() {
    const std::uint64_t per_block = header_.cluster_bytes() * 8 >> header_.refcount_order;
    for (std::uint64_t begin = 0; begin < uses_.size(); begin += per_block) {
      const std::uint64_t end = std::min<std::uint64_t>(begin + per_block, uses_.size());
      const auto uses = std::span(uses_).subspan(begin, end - begin);
      // A refcount that is too high only wastes space.
      if (std::all_of(uses.begin(), uses.end(), [](Use use) { return use == kNothing; })) continue;
      ctx_.Check();
      const std::uint64_t block = (first_ + begin) / per_block;
      const std::uint64_t offset = block < refcount_table_.size() ? refcount_table_[block] : 0;
      std::vector<std::uint64_t> numbers;
      if (offset != 0) numbers = tables_.ReadNumbers(offset, header_.cluster_bytes() / 8);
      for (std::uint64_t i = 0; i < uses.size(); ++i) {
        CompareRefcount(first_ + begin + i, uses[i], offset == 0 ? 0 : RefcountIn(numbers, i));
      }
    }
  }

  std::uint64_t RefcountIn(std::span<const std::uint64_t> numbers, std::uint64_t index) const {
    const unsigned bits = 1U << header_.refcount_order;
    const std::uint64_t per_number = 64 / bits;
    const std::uint64_t number = numbers[index / per_number];
    const auto position = static_cast<unsigned>(index % per_number);
    if (bits == 64) return number;
    // Refcounts of 8 bits and more are big-endian; smaller ones begin with the lowest bits of a
    // byte.
    const unsigned shift =
        bits >= 8 ? 64 - bits * (position + 1) : 56 - position * bits / 8 * 8 + position * bits % 8;
    return number >> shift & ((std::uint64_t{1} << bits) - 1);
  }

  void CompareRefcount(std::uint64_t cluster, Use use, std::uint64_t refcount) const {
    const std::uint64_t references = use <= kMaxPacked ? use : 1;
    if (refcount < references) {
      tables_.Damaged(fmt::format("cluster {} has {}, but its refcount is {}", cluster,
                                  base::Count(references, "reference"), refcount));
    }
    const bool alone = refcount == 1;
    if ((use == kCopied && !alone) || (use == kNotCopied && alone)) {
      tables_.Damaged(fmt::format(
          "cluster {} has a refcount of {}, which contradicts its copied flag", cluster, refcount));
    }
  }

  [[noreturn]] void Shared(std::uint64_t cluster) const {
    tables_.Damaged(fmt::format("cluster {} is used twice", cluster));
  }

  const Context& ctx_;
  const int fd_;
  const Qcow2Header& header_;
  const Qcow2Tables tables_;
  std::uint64_t clusters_;
  std::vector<std::uint64_t> refcount_table_;
  std::vector<std::uint64_t> filled_l2_;  // Offsets of the L2 tables that are not holes.
  std::uint64_t first_ = 0;               // Number of the first cluster in uses_.
  std::vector<Use> uses_;
};

}  // namespace

Qcow2Header CheckQcow2(const Context& ctx, int fd, std::string_view name) {
  Qcow2Header header = ReadQcow2Header(fd, name);
  if (header.bitmaps) {
    base::Throw(ErrorKind::kUnsupportedOperation,
                "qcow2 file '{}' has persistent bitmaps, which are not supported: to make a copy "
                "without them, run {}",
                base::Quoted(name), ConvertCommand(name));
  }
  Checker(ctx, fd, name, header).Check();
  return header;
}

}  // namespace msb::disk
