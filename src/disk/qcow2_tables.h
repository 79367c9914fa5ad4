// The tables of a qcow2 file that say where the clusters of its disk are. Whatever they hold, they
// lead neither out of the file nor in circles.

#ifndef MSB_SRC_DISK_QCOW2_TABLES_H_
#define MSB_SRC_DISK_QCOW2_TABLES_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/disk/qcow2_header.h"

namespace msb::disk {

// What an L2 entry says of a cluster of the disk.
struct Qcow2Cluster {
  enum class Kind { kUnallocated, kZero, kData, kCompressed };

  Kind kind = Kind::kUnallocated;
  bool copied = false;       // Marked as the only reference to where it is.
  std::uint64_t host = 0;    // Where it is in the file; 0: nowhere.
  std::uint64_t length = 0;  // kCompressed: bytes there, perhaps some more than are packed.
  // kData with subclusters: a bit for each that is allocated, and for each that is zeros. The
  // others are unallocated.
  std::uint32_t allocated = 0;
  std::uint32_t zero = 0;
};

// An entry of the L1 table that is not empty.
struct Qcow2L2Table {
  std::uint64_t index = 0;   // In the L1 table.
  std::uint64_t offset = 0;  // Where it is in the file.
  bool copied = false;       // As of a cluster.
};

class Qcow2Tables {
 public:
  // Reads and checks the L1 table. fd must outlive this.
  Qcow2Tables(int fd, std::string name, const Qcow2Header& header);

  std::uint64_t file_size() const { return file_size_; }
  // The L2 tables that there are, by their index. All clusters of others are unallocated.
  std::span<const Qcow2L2Table> l2_tables() const { return l2_tables_; }
  // The first of them that has at least this index; null: none.
  const Qcow2L2Table* FindL2(std::uint64_t index) const;

  // Numbers of 8 bytes each. What is past the end of the file is 0.
  std::vector<std::uint64_t> ReadNumbers(std::uint64_t offset, std::uint64_t count) const;
  // What the entry of an L2 table says that begins with these numbers: one, or two with
  // subclusters.
  Qcow2Cluster Decode(std::span<const std::uint64_t> entry) const;
  std::uint64_t entry_numbers() const { return header_.extended_l2 ? 2 : 1; }

  // Throws unless the file has these bytes. Of the last cluster it may have a part.
  void CheckInFile(std::string_view what, std::uint64_t offset, std::uint64_t length) const;
  // The same of one cluster, which must begin where clusters do.
  void CheckCluster(std::string_view what, std::uint64_t offset) const;
  [[noreturn]] void Damaged(const std::string& problem) const;

 private:
  void ReadL1();
  void AddL2(std::uint64_t index, std::uint64_t entry);
  void CheckL2Offsets() const;
  Qcow2Cluster DecodeCompressed(std::uint64_t entry) const;
  void DecodeSubclusters(std::uint64_t bitmaps, Qcow2Cluster& cluster) const;

  int fd_;
  std::string name_;
  Qcow2Header header_;
  std::uint64_t file_size_;
  // Not the whole L1 table: a hole of the file may have 32 MiB of that, and a chain many.
  std::vector<Qcow2L2Table> l2_tables_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_TABLES_H_
