// SPDX-License-Identifier: Apache-2.0
//
// Reads the disk in a qcow2 file.

#ifndef MSB_SRC_DISK_QCOW2_IMAGE_H_
#define MSB_SRC_DISK_QCOW2_IMAGE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "src/disk/disk_image.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/qcow2_tables.h"
#include "src/disk/table_cache.h"

namespace msb::disk {

// A Qcow2Image represents the disk in a qcow2 file, including the files that it is backed by.
class Qcow2Image : public DiskImage {
 public:
  // header is the header of the file. backing is the disk that the file is backed by, or null. All
  // files of a disk share one cache. FindData and Read throw kCancelled if ctx ends.
  Qcow2Image(Context ctx, base::UniqueFd fd, std::string name, Qcow2Header header,
             std::unique_ptr<DiskImage> backing, std::shared_ptr<TableCache> cache);

  std::uint64_t size() const override { return header_.virtual_size; }
  std::optional<Extent> FindData(std::uint64_t offset, std::uint64_t end) const override;
  void Read(std::span<std::byte> bytes, std::uint64_t offset) const override;

 private:
  enum class Kind { kBacking, kZero, kData, kCompressed };
  // A Run is a run of bytes of the disk that are of one kind and, if they are data, contiguous in
  // the file.
  struct Run {
    Kind kind = Kind::kBacking;
    std::uint64_t length = 0;
    // kData: offset of the first byte in the file. kCompressed: offset of the cluster in the file.
    std::uint64_t host = 0;
    std::uint64_t packed = 0;  // kCompressed: bytes in the file.
  };

  // Returns the part of an L2 table that begins at offset in the file. The table ends at end.
  TableCache::Part ReadPart(std::uint64_t offset, std::uint64_t end) const;
  // Returns the part of the run at offset that begins at offset and is at most limit bytes long.
  Run Find(std::uint64_t offset, std::uint64_t limit) const;
  // Works like Find, but only within the cluster or subcluster at offset, whose L2 entry is given.
  Run FindOne(std::span<const std::uint64_t> entry, std::uint64_t offset) const;

  void ReadRun(const Run& run, std::span<std::byte> bytes, std::uint64_t offset) const;
  void ReadBacking(std::span<std::byte> bytes, std::uint64_t offset) const;
  void ReadHost(std::span<std::byte> bytes, std::uint64_t host) const;
  void ReadCompressed(const Run& run, std::span<std::byte> bytes,
                      std::uint64_t offset_in_cluster) const;

  const Context ctx_;
  const base::UniqueFd fd_;
  const Qcow2Header header_;
  const std::unique_ptr<DiskImage> backing_;
  const std::shared_ptr<TableCache> cache_;
  const Qcow2Tables tables_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_IMAGE_H_
