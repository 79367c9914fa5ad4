// SPDX-License-Identifier: Apache-2.0

#include "tests/fuzz/qcow2_mender.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace msb::fuzz {
namespace {

constexpr std::uint64_t kSectorBytes = 512;

class Mender {
 public:
  explicit Mender(Qcow2Input& file) : file_(file), places_(file), uses_(file.clusters()) {}

  void Mend() {
    UseAll(0, 1);
    UseAll(places_.refcount_table_offset, places_.refcount_table_bytes);
    UseAll(places_.l1_offset, places_.l1_bytes);
    ForEach(places_.refcount_table_offset, places_.refcount_table_bytes, 8,
            [&](std::uint64_t at, std::uint64_t block) {
              if (block != 0 && !Use(block)) file_.SetNumber(at, 8, 0);
            });
    ForEach(places_.l1_offset, places_.l1_bytes, 8, [&](std::uint64_t at, std::uint64_t entry) {
      if (entry == 0) return;
      const bool used = Use(entry & kOffsetMask);
      file_.SetNumber(at, 8, used ? entry | kCopied : 0);
      if (used) MendL2(entry & kOffsetMask);
    });
    for (std::uint64_t cluster = 0; cluster < uses_.size(); ++cluster) Count(cluster);
  }

 private:
  struct ClusterUse {
    std::uint64_t references = 0;
    bool shared = true;  // Whether nothing but compressed clusters uses it.
  };

  // Calls function with the offset and the value of each number in this range that the input has.
  template <typename Function>
  void ForEach(std::uint64_t offset, std::uint64_t length, std::uint64_t step,
               const Function& function) {
    const std::uint64_t first = offset >> file_.cluster_bits();
    for (std::uint64_t cluster = first; cluster < file_.clusters(); ++cluster) {
      for (std::uint64_t i = 0; i < file_.given_bytes(); i += step) {
        const std::uint64_t at = file_.FileOffset(cluster * file_.given_bytes() + i);
        if (at - offset >= length) return;
        function(at, file_.Number(at, 8));
      }
    }
  }

  void MendL2(std::uint64_t table) {
    ForEach(table, file_.cluster_bytes(), places_.l2_entry_bytes,
            [&](std::uint64_t at, std::uint64_t entry) {
              if ((entry & kCompressed) != 0) {
                entry &= ~kCopied;
                file_.SetNumber(at, 8, UseCompressed(entry) ? entry : 0);
              } else if ((entry & kOffsetMask) != 0) {
                file_.SetNumber(at, 8, Use(entry & kOffsetMask) ? entry | kCopied : 0);
              }
            });
  }

  // Marks the cluster at offset as used. Returns false if it is not an unused cluster of the file.
  bool Use(std::uint64_t offset) {
    const std::uint64_t cluster = offset >> file_.cluster_bits();
    if (offset % file_.cluster_bytes() != 0 || cluster >= uses_.size()) return false;
    if (uses_[cluster].references > 0) return false;
    uses_[cluster] = {1, false};
    return true;
  }

  void UseAll(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t at = 0; at < length && offset + at < uses_.size() << file_.cluster_bits();
         at += file_.cluster_bytes()) {
      Use(offset + at);
    }
  }

  bool UseCompressed(std::uint64_t entry) {
    const unsigned offset_bits = 62 - (file_.cluster_bits() - 8);
    const std::uint64_t host = entry & ((std::uint64_t{1} << offset_bits) - 1);
    const std::uint64_t more_sectors = (entry & (kCompressed - 1)) >> offset_bits;
    const std::uint64_t end = (host / kSectorBytes + more_sectors + 1) * kSectorBytes;
    const std::uint64_t first = host >> file_.cluster_bits();
    const std::uint64_t last = (end - 1) >> file_.cluster_bits();
    if (last >= uses_.size()) return false;
    for (std::uint64_t i = first; i <= last; ++i) {
      if (!uses_[i].shared) return false;
    }
    for (std::uint64_t i = first; i <= last; ++i) ++uses_[i].references;
    return true;
  }

  void Count(std::uint64_t cluster) {
    const unsigned order = places_.refcount_order;
    const std::uint64_t per_block = file_.cluster_bytes() * 8 >> order;
    const std::uint64_t block =
        file_.Number(places_.refcount_table_offset + cluster / per_block * 8, 8);
    if (block == 0) return;
    const std::uint64_t bit = (cluster % per_block) << order;
    const std::uint64_t references = uses_[cluster].references;
    if (order >= 3)
      return file_.SetNumber(block + bit / 8, std::size_t{1} << (order - 3), references);
    // Several refcounts share a byte. The first is in its lowest bits.
    const std::uint64_t most = (std::uint64_t{1} << (1U << order)) - 1;
    const std::uint64_t others = file_.Number(block + bit / 8, 1) & ~(most << bit % 8);
    file_.SetNumber(block + bit / 8, 1, others | std::min(references, most) << bit % 8);
  }

  Qcow2Input& file_;
  const Qcow2Places places_;
  std::vector<ClusterUse> uses_;
};

}  // namespace

Qcow2Places::Qcow2Places(const Qcow2Input& file)
    : l1_offset(file.Number(40, 8)),
      l1_bytes(file.Number(36, 4) * 8),
      refcount_table_offset(file.Number(48, 8)),
      refcount_table_bytes(file.Number(56, 4) << file.cluster_bits()),
      refcount_order(4),
      l2_entry_bytes(8) {
  if (file.Number(4, 4) < 3) return;
  refcount_order = static_cast<unsigned>(std::min<std::uint64_t>(file.Number(96, 4), 6));
  if ((file.Number(72, 8) >> 4 & 1) != 0) l2_entry_bytes = 16;
}

void MendQcow2(Qcow2Input& file) { Mender(file).Mend(); }

}  // namespace msb::fuzz
