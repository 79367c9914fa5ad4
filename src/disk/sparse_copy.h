// SPDX-License-Identifier: Apache-2.0
//
// Copies a disk file so that the copy has the same size, content and holes.

#ifndef MSB_SRC_DISK_SPARSE_COPY_H_
#define MSB_SRC_DISK_SPARSE_COPY_H_

#include <cstdint>

#include "msb/context.h"
#include "src/disk/scan.h"

namespace msb::disk {

// Copies the first size bytes of source to target, an empty file, and flushes target to disk.
// Shares blocks if the file system supports that (FICLONE, ioctl_ficlone(2)). On a network file
// system, lets the server copy the extents (copy_file_range(2)). Otherwise reads and writes the
// extents, which is faster than copy_file_range on local file systems. Progress phase "copy".
// Throws kIO if the copy fails, and kCancelled if ctx ends. In both cases, the content of target is
// undefined. If the file system is full, the message reports the space that source occupies.
void CopySparse(const Context& ctx, int source, int target, std::uint64_t size);

// Does the same and also passes all data to consumer, so that the data is read only once.
void CopySparse(const Context& ctx, int source, int target, std::uint64_t size,
                RegionConsumer& consumer);

// A RegionWriter writes the data of each region to a file, after passing the region to another
// consumer. The file must already have its full size, since holes are not written.
class RegionWriter : public RegionConsumer {
 public:
  RegionWriter(int target, RegionConsumer& next) : target_(target), next_(next) {}

  void Process(const Region& region) override { next_.Process(region); }
  void Commit(const Region& region) override;

 private:
  int target_;
  RegionConsumer& next_;
};

// Copies the extents of the first size bytes of source without passing their data through this
// process. Returns the offset at which it stopped, which is less than size if the kernel cannot
// copy the rest.
std::uint64_t CopyInKernel(int source, int target, std::uint64_t size, base::ProgressMeter& meter);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_SPARSE_COPY_H_
