// A qcow2 file as a disk: where each of its clusters is, and what those hold.

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

class Qcow2Image : public DiskImage {
 public:
  // header is the file's; backing is what it stands on, or null.
  Qcow2Image(base::UniqueFd fd, std::string name, Qcow2Header header,
             std::unique_ptr<DiskImage> backing, std::shared_ptr<TableCache> cache);

  std::uint64_t size() const override { return header_.virtual_size; }
  std::optional<Extent> FindData(std::uint64_t offset, std::uint64_t end) const override;
  void Read(std::span<std::byte> bytes, std::uint64_t offset) const override;

 private:
  enum class Kind { kBacking, kZero, kData, kCompressed };
  // Bytes of the disk that are of one kind and, where they are data, in a row in the file.
  struct Run {
    Kind kind = Kind::kBacking;
    std::uint64_t length = 0;
    std::uint64_t host = 0;    // kData: where the first is. kCompressed: where the cluster is.
    std::uint64_t packed = 0;  // kCompressed: bytes there.
  };

  // The part of an L2 table that begins at this offset in the file and ends before another.
  TableCache::Part ReadPart(std::uint64_t offset, std::uint64_t end) const;
  // The run that offset is in, from there on, of at most limit bytes.
  Run Find(std::uint64_t offset, std::uint64_t limit) const;
  // The same within one cluster, or subcluster.
  Run FindOne(std::span<const std::uint64_t> entry, std::uint64_t offset) const;

  void ReadRun(const Run& run, std::span<std::byte> bytes, std::uint64_t offset) const;
  void ReadBacking(std::span<std::byte> bytes, std::uint64_t offset) const;
  void ReadHost(std::span<std::byte> bytes, std::uint64_t host) const;
  void ReadCompressed(const Run& run, std::span<std::byte> bytes,
                      std::uint64_t offset_in_cluster) const;

  const base::UniqueFd fd_;
  const Qcow2Header header_;
  const std::unique_ptr<DiskImage> backing_;
  const std::shared_ptr<TableCache> cache_;
  const Qcow2Tables tables_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_IMAGE_H_
