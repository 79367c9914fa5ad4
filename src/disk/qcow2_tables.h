// SPDX-License-Identifier: Apache-2.0
//
// Reads the tables of a qcow2 file that map the clusters of the disk to clusters of the file. All
// offsets are checked, so damaged tables lead neither out of the file nor in circles.

#ifndef MSB_SRC_DISK_QCOW2_TABLES_H_
#define MSB_SRC_DISK_QCOW2_TABLES_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "src/disk/qcow2_header.h"

namespace msb::disk {

// A Qcow2Cluster holds the information of an L2 entry about a cluster of the disk.
struct Qcow2Cluster {
  enum class Kind { kUnallocated, kZero, kData, kCompressed };

  Kind kind = Kind::kUnallocated;
  bool copied = false;       // Marked as the only reference to host.
  std::uint64_t host = 0;    // Offset in the file; 0: not stored.
  std::uint64_t length = 0;  // kCompressed: bytes in the file, perhaps more than the data has.
  // kData with subclusters: bit masks of the subclusters that are allocated, and of those that read
  // as zeros. The other subclusters are unallocated.
  std::uint32_t allocated = 0;
  std::uint32_t zero = 0;
};

// A Qcow2L2Table describes an entry of the L1 table that is not empty.
struct Qcow2L2Table {
  std::uint64_t index = 0;   // Index in the L1 table.
  std::uint64_t offset = 0;  // Offset in the file.
  bool copied = false;       // Marked as the only reference to offset.
};

// Reads the L1 table and the L2 tables of an open qcow2 file.
class Qcow2Tables {
 public:
  // Reads and checks the L1 table. fd must stay open as long as this object exists. Throws
  // kSnapshotIntegrity if the table is damaged, and kCancelled if ctx ends.
  Qcow2Tables(const Context& ctx, int fd, std::string name, const Qcow2Header& header);

  std::uint64_t file_size() const { return file_size_; }
  // Returns the L2 tables that exist, in order of their index. All clusters that the other entries
  // of the L1 table would map are unallocated.
  std::span<const Qcow2L2Table> l2_tables() const { return l2_tables_; }
  // Returns the first existing L2 table with at least this index, or null if there is none.
  const Qcow2L2Table* FindL2(std::uint64_t index) const;

  // Reads count big-endian numbers of 8 bytes. Numbers beyond the end of the file are 0.
  std::vector<std::uint64_t> ReadNumbers(std::uint64_t offset, std::uint64_t count) const;
  // Decodes an entry of an L2 table, which has one number, or two numbers if there are subclusters.
  // Throws kSnapshotIntegrity if it is damaged.
  Qcow2Cluster Decode(std::span<const std::uint64_t> entry) const;
  // Returns how many numbers an entry of an L2 table has.
  std::uint64_t entry_numbers() const { return header_.extended_l2 ? 2 : 1; }

  // Throws kSnapshotIntegrity unless this range is in the file. The last cluster of the file may be
  // incomplete. what names the range in the message.
  void CheckInFile(std::string_view what, std::uint64_t offset, std::uint64_t length) const;
  // Works like CheckInFile, but for one cluster, which must also begin at a multiple of the cluster
  // size.
  void CheckCluster(std::string_view what, std::uint64_t offset) const;
  // Throws kSnapshotIntegrity, naming the file.
  [[noreturn]] void Damaged(const std::string& problem) const;

 private:
  void ReadL1(const Context& ctx);
  void AddL2(std::uint64_t index, std::uint64_t entry);
  void CheckL2Offsets() const;
  Qcow2Cluster DecodeCompressed(std::uint64_t entry) const;
  void DecodeSubclusters(std::uint64_t bitmaps, Qcow2Cluster& cluster) const;

  int fd_;
  std::string name_;
  Qcow2Header header_;
  std::uint64_t file_size_;
  // Only the entries that are not empty, to save memory: the L1 table may take up 32 MiB in a hole
  // of the file, and a chain has many files.
  std::vector<Qcow2L2Table> l2_tables_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_TABLES_H_
