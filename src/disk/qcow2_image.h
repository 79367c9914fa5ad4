// A qcow2 file as a disk: where each of its clusters is, and what those hold.

#ifndef MSB_SRC_DISK_QCOW2_IMAGE_H_
#define MSB_SRC_DISK_QCOW2_IMAGE_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "src/disk/disk_image.h"
#include "src/disk/qcow2_header.h"

namespace msb::disk {

class Qcow2Image : public DiskImage {
 public:
  // header is the file's; backing is what it stands on, or null.
  Qcow2Image(base::UniqueFd fd, std::string name, Qcow2Header header,
             std::unique_ptr<DiskImage> backing);

  std::uint64_t size() const override { return header_.virtual_size; }
  std::optional<Extent> NextData(std::uint64_t offset) const override;
  void Read(std::span<std::byte> bytes, std::uint64_t offset) const override;

 private:
  enum class Kind { kBacking, kZero, kData, kCompressed };
  // Bytes of the disk that are of one kind and, where they are data, in a row in the file.
  struct Run {
    Kind kind = Kind::kBacking;
    std::uint64_t length = 0;
    std::uint64_t host = 0;  // kData: where the first is. kCompressed: the cluster's descriptor.
  };
  using Table = std::vector<std::uint64_t>;

  [[noreturn]] void Damaged(const std::string& problem) const;
  Table ReadTable(std::uint64_t offset, std::uint64_t entries) const;
  // The L2 table for this entry of the L1 table; null: there is none.
  std::shared_ptr<const Table> L2Table(std::uint64_t l1_index) const;
  // The run that offset is in, from there on, of at most limit bytes.
  Run Find(std::uint64_t offset, std::uint64_t limit) const;
  // The same within one cluster, or subcluster.
  Run FindOne(const Table& l2, std::uint64_t offset) const;
  void CheckHost(std::uint64_t host) const;

  void ReadRun(const Run& run, std::span<std::byte> bytes, std::uint64_t offset) const;
  void ReadBacking(std::span<std::byte> bytes, std::uint64_t offset) const;
  void ReadHost(std::span<std::byte> bytes, std::uint64_t host) const;
  void ReadCompressed(std::uint64_t descriptor, std::span<std::byte> bytes,
                      std::uint64_t offset_in_cluster) const;

  const base::UniqueFd fd_;
  const std::string name_;
  const Qcow2Header header_;
  const std::unique_ptr<DiskImage> backing_;
  const std::uint64_t file_size_;
  const std::uint64_t l2_entries_;  // Clusters that an L2 table maps.
  const Table l1_;
  mutable std::mutex mutex_;
  mutable std::map<std::uint64_t, std::shared_ptr<const Table>> l2_tables_;  // Guarded by mutex_.
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_QCOW2_IMAGE_H_
