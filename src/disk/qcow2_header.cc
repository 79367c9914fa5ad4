// SPDX-License-Identifier: Apache-2.0

#include "src/disk/qcow2_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "src/base/big_endian.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/convert_command.h"
#include "src/disk/qcow2_layout.h"

namespace msb::disk {
namespace {

using base::Quoted;
using base::Throw;

constexpr std::size_t kVersion2Bytes = 72;
constexpr std::size_t kVersion3Bytes = 104;
constexpr std::size_t kLongestKnownBytes = 112;  // Including the compression type.
constexpr std::uint64_t kMaxL1Bytes = 32 << 20;
constexpr std::uint64_t kMaxRefcountTableBytes = 8 << 20;

// Bits of incompatible_features.
constexpr std::uint64_t kDirty = 1 << 0;
constexpr std::uint64_t kCorrupt = 1 << 1;
constexpr std::uint64_t kExternalData = 1 << 2;
constexpr std::uint64_t kCompressionType = 1 << 3;
constexpr std::uint64_t kExtendedL2 = 1 << 4;

// Types of header extensions, besides kBackingFormat.
constexpr std::uint64_t kExtensionsEnd = 0;
constexpr std::uint64_t kFeatureNames = 0x6803f857;
constexpr std::uint64_t kBitmaps = 0x23852875;
constexpr std::size_t kFeatureNameBytes = 48;
constexpr std::uint64_t kBitmapsAreValid = 1 << 0;  // A bit of autoclear_features.

class HeaderReader {
 public:
  HeaderReader(int fd, std::string_view name) : fd_(fd), name_(name) {
    size_ = base::StampOf(fd).size;
  }

  Qcow2Header Read() {
    Load(kLongestKnownBytes);
    if (!bytes_.starts_with("QFI\xfb")) Damaged("does not begin with the qcow2 signature");
    ReadFields();
    // The first cluster holds the extensions and the backing file's name.
    Load(header_.cluster_bytes());
    ReadExtensions();
    CheckFeatures();
    CheckTables();
    ReadBackingFile();
    header_.virtual_size -= header_.virtual_size % kSectorBytes;  // QEMU rounds down too.
    return header_;
  }

 private:
  [[noreturn]] void Damaged(std::string_view problem) const {
    Repairable(fmt::format("{}; replace it with an undamaged copy", problem));
  }
  [[noreturn]] void Repairable(std::string_view problem) const {
    Throw(ErrorKind::kSnapshotIntegrity, "qcow2 file '{}' {}", Quoted(name_), problem);
  }
  [[noreturn]] void Unsupported(std::string_view feature) const {
    Throw(ErrorKind::kUnsupportedOperation,
          "qcow2 file '{}' has an unsupported feature, {}: to convert it, run {}", Quoted(name_),
          feature, ConvertCommand(name_));
  }
  [[noreturn]] void Encrypted() const {
    Throw(ErrorKind::kUnsupportedOperation,
          "qcow2 file '{}' is encrypted, which is not supported: to decrypt it, write its key to a "
          "file KEYFILE and run {}",
          Quoted(name_), DecryptCommand(name_));
  }

  // Loads the first length bytes of the file, or all of it if it is shorter.
  void Load(std::uint64_t length) {
    bytes_.resize(std::min(length, size_));
    base::ReadExactly(fd_, bytes_.data(), bytes_.size(), 0);
  }
  std::string_view Bytes(std::uint64_t offset, std::uint64_t length) const {
    if (offset > bytes_.size() || length > bytes_.size() - offset) {
      Damaged("is truncated within its header");
    }
    return std::string_view(bytes_).substr(offset, length);
  }
  std::uint64_t Number(std::uint64_t offset, std::size_t length) const {
    return base::LoadBigEndian(std::as_bytes(std::span(Bytes(offset, length))));
  }

  void ReadFields() {
    header_.version = static_cast<std::uint32_t>(Number(4, 4));
    if (header_.version != 2 && header_.version != 3) {
      Unsupported(fmt::format("version {}", header_.version));
    }
    const std::uint64_t cluster_bits = Number(20, 4);
    if (cluster_bits < 9 || cluster_bits > 21) {
      Damaged(fmt::format("must have clusters of 2^9 to 2^21 bytes, but has clusters of 2^{} bytes",
                          cluster_bits));
    }
    header_.cluster_bits = static_cast<std::uint32_t>(cluster_bits);
    header_.virtual_size = Number(24, 8);
    if (Number(32, 4) != 0) Encrypted();
    header_.l1_entries = static_cast<std::uint32_t>(Number(36, 4));
    header_.l1_offset = Number(40, 8);
    header_.refcount_table_offset = Number(48, 8);
    header_.refcount_table_clusters = static_cast<std::uint32_t>(Number(56, 4));
    if (Number(60, 4) != 0) Unsupported("internal snapshots");
    header_bytes_ = kVersion2Bytes;
    if (header_.version == 2) return;
    incompatible_ = Number(72, 8);
    autoclear_ = Number(88, 8);
    const std::uint64_t refcount_order = Number(96, 4);
    header_bytes_ = Number(100, 4);
    if (refcount_order > 6) {
      Damaged(fmt::format("has refcounts of 2^{} bits, more than 64", refcount_order));
    }
    header_.refcount_order = static_cast<std::uint32_t>(refcount_order);
    if (header_bytes_ < kVersion3Bytes || header_bytes_ % 8 != 0 ||
        header_bytes_ > header_.cluster_bytes()) {
      Damaged(fmt::format("has an invalid header length of {} bytes", header_bytes_));
    }
    if (header_bytes_ >= kLongestKnownBytes) compression_ = Number(104, 1);
  }

  void ReadExtensions() {
    // Extensions end where the backing file's name begins or, without one, with the first cluster.
    const std::uint64_t name_offset = Number(8, 8);
    if (name_offset > header_.cluster_bytes()) {
      Damaged("has its backing file name outside its first cluster");
    }
    const std::uint64_t end = name_offset == 0 ? header_.cluster_bytes() : name_offset;
    for (std::uint64_t offset = header_bytes_; offset + 8 <= std::min(end, size_);) {
      const std::uint64_t type = Number(offset, 4);
      const std::uint64_t length = Number(offset + 4, 4);
      offset += 8;
      if (type == kExtensionsEnd) return;
      if (length > end - offset) Damaged("has a header extension that exceeds the header");
      if (type == kBackingFormat) ReadBackingFormat(Bytes(offset, length));
      if (type == kFeatureNames) feature_names_ = Bytes(offset, length);
      if (type == kBitmaps) header_.bitmaps = (autoclear_ & kBitmapsAreValid) != 0;
      offset += (length + 7) / 8 * 8;
    }
  }

  void ReadBackingFormat(std::string_view format) {
    if (format.empty()) {
      header_.backing_format.reset();
    } else if (format == "raw") {
      header_.backing_format = DiskFormat::kRaw;
    } else if (format == "qcow2") {
      header_.backing_format = DiskFormat::kQcow2;
    } else {
      Unsupported(fmt::format("a backing file of format '{}'", Quoted(format)));
    }
  }

  // Returns the name that the file itself has for a feature that is unknown here.
  std::string FeatureName(unsigned bit) const {
    for (std::size_t at = 0; at + kFeatureNameBytes <= feature_names_.size();
         at += kFeatureNameBytes) {
      const std::string_view entry = feature_names_.substr(at, kFeatureNameBytes);
      if (entry[0] != 0 || static_cast<unsigned char>(entry[1]) != bit) continue;
      const std::string_view name = entry.substr(2);
      return fmt::format("'{}'", Quoted(name.substr(0, name.find('\0'))));
    }
    return fmt::format("incompatible feature {}", bit);
  }

  void CheckFeatures() {
    if ((incompatible_ & kCorrupt) != 0) {
      Repairable("is marked corrupt; repair a copy of it with 'qemu-img check -r all'");
    }
    if ((incompatible_ & kDirty) != 0) {
      Repairable("was not closed properly; repair it with 'qemu-img check -r all'");
    }
    if ((incompatible_ & kExternalData) != 0) Unsupported("an external data file");
    for (unsigned bit = 5; bit < 64; ++bit) {
      if ((incompatible_ >> bit & 1) != 0) Unsupported(FeatureName(bit));
    }
    header_.extended_l2 = (incompatible_ & kExtendedL2) != 0;
    if (header_.extended_l2 && header_.cluster_bits < 14) {
      Damaged("has subclusters of less than 512 bytes");
    }
    if (((incompatible_ & kCompressionType) != 0) != (compression_ != 0)) {
      Damaged("has a compression type that contradicts its feature bits");
    }
    if (compression_ > 1) Unsupported(fmt::format("compression type {}", compression_));
    header_.compression = compression_ == 0 ? Qcow2Compression::kZlib : Qcow2Compression::kZstd;
  }

  void CheckTable(const char* what, std::uint64_t offset, std::uint64_t bytes,
                  std::uint64_t max_bytes) const {
    if (bytes > max_bytes) {
      Damaged(fmt::format("has {} of {} bytes, more than {}", what, bytes, max_bytes));
    }
    if (offset % header_.cluster_bytes() != 0) {
      Damaged(fmt::format("has {} that is not aligned to a cluster", what));
    }
    // The last cluster of the file may be incomplete.
    if (bytes > 0 &&
        (offset == 0 || offset >= size_ || bytes >= size_ - offset + header_.cluster_bytes())) {
      Damaged(fmt::format("has {} outside the file", what));
    }
  }

  void CheckTables() const {
    const std::uint64_t entry_bytes = header_.extended_l2 ? 16 : 8;
    const std::uint64_t bytes_per_l2 =
        header_.cluster_bytes() / entry_bytes * header_.cluster_bytes();
    if (header_.virtual_size > std::numeric_limits<std::int64_t>::max()) {
      Damaged(
          fmt::format("has a virtual size of {} bytes, more than 2^63 - 1", header_.virtual_size));
    }
    const std::uint64_t needed =
        header_.virtual_size / bytes_per_l2 + (header_.virtual_size % bytes_per_l2 != 0 ? 1 : 0);
    if (header_.l1_entries < needed) Damaged("has an L1 table that is too small for its disk");
    CheckTable("an L1 table", header_.l1_offset, std::uint64_t{header_.l1_entries} * 8,
               kMaxL1Bytes);
    const std::uint64_t refcount_bytes = std::uint64_t{header_.refcount_table_clusters}
                                         << header_.cluster_bits;
    if (refcount_bytes == 0) Damaged("has no refcount table");
    CheckTable("a refcount table", header_.refcount_table_offset, refcount_bytes,
               kMaxRefcountTableBytes);
  }

  void ReadBackingFile() {
    const std::uint64_t offset = Number(8, 8);
    const std::uint64_t length = Number(16, 4);
    if (offset == 0) return;
    if (length > kMaxBackingNameBytes || length > header_.cluster_bytes() - offset) {
      Damaged("has a backing file name that exceeds its first cluster or 1023 bytes");
    }
    header_.backing_file = Bytes(offset, length);
  }

  const int fd_;
  const std::string_view name_;
  std::uint64_t size_ = 0;
  std::string bytes_;  // The first cluster of the file, or all of a shorter file.
  std::uint64_t header_bytes_ = 0;
  std::uint64_t incompatible_ = 0;
  std::uint64_t autoclear_ = 0;
  std::uint64_t compression_ = 0;
  std::string_view feature_names_;
  Qcow2Header header_;
};

}  // namespace

Qcow2Header ReadQcow2Header(int fd, std::string_view name) { return HeaderReader(fd, name).Read(); }

bool IsBackingName(std::string_view name) {
  return base::IsPlainFileName(name) && name.find(':') == std::string_view::npos;
}

void CheckBackingName(const Qcow2Header& header, std::string_view name) {
  const std::string& backing = header.backing_file;
  if (backing.empty() || IsBackingName(backing)) return;
  Throw(ErrorKind::kSnapshotIntegrity,
        "'{}' names the backing file '{}', which must be a plain file name without ':'",
        Quoted(name), Quoted(backing));
}

}  // namespace msb::disk
