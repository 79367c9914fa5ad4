// The header of a qcow2 file, versions 2 and 3, as QEMU's docs/interop/qcow2.txt describes it.

#ifndef MSB_SRC_DISK_QCOW2_HEADER_H_
#define MSB_SRC_DISK_QCOW2_HEADER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "msb/vmm/backend.h"

namespace msb::disk {

enum class Qcow2Compression { kZlib, kZstd };

struct Qcow2Header {
  std::uint32_t version = 3;
  std::uint32_t cluster_bits = 16;
  std::uint64_t virtual_size = 0;  // Bytes; whole sectors of 512.
  std::uint64_t l1_offset = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t refcount_order = 4;  // A refcount has 1 << refcount_order bits.
  bool extended_l2 = false;          // 32 subclusters a cluster.
  Qcow2Compression compression = Qcow2Compression::kZlib;
  bool bitmaps = false;                           // It has persistent bitmaps that are valid.
  std::string backing_file = {};                  // Empty: none.
  std::optional<DiskFormat> backing_format = {};  // As the header extension says, if it does.

  std::uint64_t cluster_bytes() const { return std::uint64_t{1} << cluster_bits; }
};

// Reads and checks the header of an open qcow2 file: every field is in its range, every offset
// aligned and inside the file. name is what messages call the file.
// kSnapshotIntegrity: no qcow2 file, damaged, marked corrupt or dirty (the message says what to
// do). kUnsupportedOperation, naming it: an unknown incompatible feature, an external data file,
// encryption, internal snapshots, or a backing format that is neither raw nor qcow2.
Qcow2Header ReadQcow2Header(int fd, std::string_view name);

// True for the name of a file in the same directory. With a colon it may be an address, as "nbd:…"
// or "json:…".
bool IsBackingName(std::string_view name);

// Throws kSnapshotIntegrity if the header names a backing file outside the file's own directory:
// whoever follows that would let his guest read it.
void CheckBackingName(const Qcow2Header& header, std::string_view name);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_HEADER_H_
