// SPDX-License-Identifier: Apache-2.0
//
// Reads and checks the header of a qcow2 file, version 2 or 3, as QEMU's docs/interop/qcow2.txt
// describes it.

#ifndef MSB_SRC_DISK_QCOW2_HEADER_H_
#define MSB_SRC_DISK_QCOW2_HEADER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "msb/disk.h"

namespace msb::disk {

enum class Qcow2Compression { kZlib, kZstd };

// A Qcow2Header holds the fields of the header of a qcow2 file.
struct Qcow2Header {
  std::uint32_t version = 3;
  std::uint32_t cluster_bits = 16;
  std::uint64_t virtual_size = 0;  // Bytes, a multiple of 512.
  std::uint64_t l1_offset = 0;
  std::uint32_t l1_entries = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t refcount_order = 4;  // A refcount has 1 << refcount_order bits.
  bool extended_l2 = false;          // Each cluster has 32 subclusters.
  Qcow2Compression compression = Qcow2Compression::kZlib;
  bool bitmaps = false;                           // The file has valid persistent bitmaps.
  std::string backing_file = {};                  // Empty: no backing file.
  std::optional<DiskFormat> backing_format = {};  // From the header extension, if there is one.

  std::uint64_t cluster_bytes() const { return std::uint64_t{1} << cluster_bits; }
};

// Reads and checks the header of an open qcow2 file: every field must be in its range, and every
// offset aligned and inside the file. name is the file's name in messages.
// Throws kSnapshotIntegrity if the file is not a qcow2 file, is damaged, or is marked corrupt or
// dirty; for a corrupt or dirty file, the message says what to do.
// Throws kUnsupportedOperation, naming the feature, for a version other than 2 and 3, an unknown
// incompatible feature or compression type, an external data file, encryption, internal snapshots,
// or a backing format other than raw and qcow2.
Qcow2Header ReadQcow2Header(int fd, std::string_view name);

// Returns true if name can be the name of a file in the same directory. Returns false for a name
// with a colon, which may be an address, such as "nbd:…" or "json:…".
bool IsBackingName(std::string_view name);

// Throws kSnapshotIntegrity if the header names a backing file that is not in the file's own
// directory (IsBackingName). A VM that followed the name would let its guest read that file.
void CheckBackingName(const Qcow2Header& header, std::string_view name);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_HEADER_H_
