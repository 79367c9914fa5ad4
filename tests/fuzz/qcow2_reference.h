// SPDX-License-Identifier: Apache-2.0
//
// Reads what a guest sees of a qcow2 file in the simplest way: sector by sector, looking each up
// from the L1 table on. Also checks what CheckQcow2 guarantees.

#ifndef MSB_TESTS_FUZZ_QCOW2_REFERENCE_H_
#define MSB_TESTS_FUZZ_QCOW2_REFERENCE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/disk/qcow2_header.h"
#include "src/disk/qcow2_tables.h"

namespace msb::fuzz {

class Qcow2Reference {
 public:
  enum class Source { kNothing, kBacking, kFile };
  struct Sector {
    Source source = Source::kNothing;
    std::string bytes;
  };

  // backing is the content of the backing file, or empty. fd and backing must outlive this object.
  Qcow2Reference(int fd, const disk::Qcow2Header& header, std::string_view backing);

  // Returns the sector at this offset of the disk.
  Sector Read(std::uint64_t offset);
  // Requires of a sound file that no cluster is used twice or has too low a refcount. Returns true
  // if any cluster is compressed.
  bool CheckUses() const;

 private:
  // Returns the entry for this offset of the disk, whose L2 table is at l2_offset.
  disk::Qcow2Cluster Find(std::uint64_t l2_offset, std::uint64_t offset) const;
  // Decodes the L2 entry that consists of the first of these numbers.
  disk::Qcow2Cluster Decode(std::span<const std::uint64_t> numbers) const;
  std::uint64_t RefcountOf(std::uint64_t cluster) const;
  std::string ReadHost(std::uint64_t host, std::uint64_t length) const;
  std::string ReadCompressed(const disk::Qcow2Cluster& cluster, std::uint64_t in_cluster);

  const int fd_;
  const disk::Qcow2Header header_;
  const disk::Qcow2Tables tables_;
  const std::vector<std::uint64_t> refcount_table_;
  const std::string_view backing_;
  std::uint64_t unpacked_host_ = 0;  // Where the cluster in unpacked_ is stored.
  std::uint64_t unpacked_length_ = 0;
  std::string unpacked_;  // Content of the cluster that was decompressed last.
};

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_QCOW2_REFERENCE_H_
