// What the guest of a qcow2 file sees, read in the simplest way: sector by sector, each looked up
// from the L1 table on. And what CheckQcow2 answers for.

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

  // backing: what is in the backing file, empty without one. fd and backing must outlive this.
  Qcow2Reference(int fd, const disk::Qcow2Header& header, std::string_view backing);

  // The sector that begins here.
  Sector Read(std::uint64_t offset);
  // Demands of a sound file that no cluster is used twice or counted too low. Returns whether any
  // is compressed.
  bool CheckUses() const;

 private:
  // The entry for this place of the disk, whose L2 table is at l2_offset.
  disk::Qcow2Cluster Find(std::uint64_t l2_offset, std::uint64_t offset) const;
  // What the table says that has these numbers from here on.
  disk::Qcow2Cluster Decode(std::span<const std::uint64_t> numbers) const;
  std::uint64_t RefcountOf(std::uint64_t cluster) const;
  std::string ReadHost(std::uint64_t host, std::uint64_t length) const;
  std::string ReadCompressed(const disk::Qcow2Cluster& cluster, std::uint64_t in_cluster);

  const int fd_;
  const disk::Qcow2Header header_;
  const disk::Qcow2Tables tables_;
  const std::vector<std::uint64_t> refcount_table_;
  const std::string_view backing_;
  std::uint64_t unpacked_host_ = 0;  // Of unpacked_.
  std::uint64_t unpacked_length_ = 0;
  std::string unpacked_;  // The cluster that was unpacked last.
};

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_QCOW2_REFERENCE_H_
