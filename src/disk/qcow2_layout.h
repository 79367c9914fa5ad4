// SPDX-License-Identifier: Apache-2.0
//
// Defines constants of the qcow2 format that the readers and writers share, and the layout that the
// writers produce: version 3, clusters of 64 KiB, and refcounts of 16 bits.

#ifndef MSB_SRC_DISK_QCOW2_LAYOUT_H_
#define MSB_SRC_DISK_QCOW2_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "src/base/big_endian.h"
#include "src/base/file.h"

namespace msb::disk {

inline constexpr unsigned kClusterBits = 16;
inline constexpr std::uint64_t kClusterBytes = 1 << kClusterBits;
inline constexpr std::uint64_t kEntriesPerTable = kClusterBytes / 8;
inline constexpr std::uint64_t kBytesPerL2 = kEntriesPerTable * kClusterBytes;
inline constexpr std::uint64_t kRefcountsPerBlock = kClusterBytes / 2;
inline constexpr std::uint64_t kMaxL1Entries = (32 << 20) / 8;
inline constexpr std::uint64_t kSectorBytes = 512;
inline constexpr std::size_t kMaxBackingNameBytes = 1023;
inline constexpr std::uint64_t kBackingFormat = 0xe2792aca;  // Type of a header extension.
inline constexpr std::uint64_t kHeaderBytes = 104;
inline constexpr std::uint64_t kCopiedFlag = std::uint64_t{1} << 63;  // Marks the only reference.

// Returns bytes / part, rounded up.
constexpr std::uint64_t CountOf(std::uint64_t bytes, std::uint64_t part) {
  return bytes / part + (bytes % part != 0 ? 1 : 0);
}

// A Buffer holds a part of a file that is being written.
class Buffer {
 public:
  explicit Buffer(std::uint64_t size) : bytes_(size) {}

  void Number(std::size_t offset, std::size_t length, std::uint64_t value) {
    base::StoreBigEndian(value, std::span(bytes_).subspan(offset, length));
  }
  void Text(std::size_t offset, std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      bytes_[offset + i] = static_cast<std::byte>(text[i]);
    }
  }
  void WriteTo(int fd, std::uint64_t offset) const {
    base::WriteExactly(fd, bytes_.data(), bytes_.size(), offset);
  }

 private:
  std::vector<std::byte> bytes_;
};

// A HeaderFields holds the fields of a header that depend on the disk.
struct HeaderFields {
  std::uint64_t virtual_size = 0;
  std::uint64_t l1_entries = 0;
  std::uint64_t l1_offset = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint64_t refcount_table_clusters = 0;
};

// Returns the header of a file without a backing file, in a buffer of size bytes.
inline Buffer MakeHeader(std::uint64_t size, const HeaderFields& fields) {
  Buffer header(size);
  header.Text(0, "QFI\xfb");
  header.Number(4, 4, 3);
  header.Number(20, 4, kClusterBits);
  header.Number(24, 8, fields.virtual_size);
  header.Number(36, 4, fields.l1_entries);
  header.Number(40, 8, fields.l1_offset);
  header.Number(48, 8, fields.refcount_table_offset);
  header.Number(56, 4, fields.refcount_table_clusters);
  header.Number(96, 4, 4);  // A refcount has 2^4 bits.
  header.Number(100, 4, kHeaderBytes);
  return header;
}

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_LAYOUT_H_
