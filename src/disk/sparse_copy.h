// Copying a disk file so that the copy has the same size, content and holes.

#ifndef MSB_SRC_DISK_SPARSE_COPY_H_
#define MSB_SRC_DISK_SPARSE_COPY_H_

#include <cstdint>

#include "msb/context.h"
#include "src/disk/scan.h"

namespace msb::disk {

// Copies the first size bytes of source into target, an empty file, and flushes them to the disk.
// Shares blocks where the file system can (FICLONE, ioctl_ficlone(2)); on a network file system
// lets the server copy the extents (copy_file_range(2)); else reads and writes them, which on local
// file systems is faster. Throws kIO and kCancelled; what target holds then is undefined.
void CopySparse(const Context& ctx, int source, int target, std::uint64_t size);

// The same, and hands all data to the consumer on the way, so that it is read once.
void CopySparse(const Context& ctx, int source, int target, std::uint64_t size,
                RegionConsumer& consumer);

// Writes the data of each region to a file of the whole's size, after handing it to another
// consumer.
class RegionWriter : public RegionConsumer {
 public:
  RegionWriter(int target, RegionConsumer& next) : target_(target), next_(next) {}

  void Process(const Region& region) override { next_.Process(region); }
  void Commit(const Region& region) override;

 private:
  int target_;
  RegionConsumer& next_;
};

// Copies the extents of the first size bytes of source without their data passing through this
// process. False, with nothing copied, where the kernel cannot.
bool CopyInKernel(int source, int target, std::uint64_t size, base::ProgressMeter& meter);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_SPARSE_COPY_H_
