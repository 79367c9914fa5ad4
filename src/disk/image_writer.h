// Writing disks: an empty overlay, or all that a guest sees in one file.

#ifndef MSB_SRC_DISK_IMAGE_WRITER_H_
#define MSB_SRC_DISK_IMAGE_WRITER_H_

#include <cstdint>
#include <string>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/disk/disk_image.h"

namespace msb::disk {

struct Overlay {
  std::uint64_t virtual_size = 0;  // Bytes, a multiple of 512.
  std::string backing_file = {};   // Its name, without directories.
  DiskFormat backing_format = DiskFormat::kRaw;
};

// Writes a qcow2 file (version 3, clusters of 64 KiB) that has no data of its own into the empty
// file fd, and flushes it. What it costs does not depend on virtual_size but for 8 bytes for each
// 512 MiB, which are a hole. kInvalidArgument: a size or a name that no header can say.
void WriteOverlay(int fd, const Overlay& overlay);

// Writes all that the guest sees into the empty file fd, sparse, and flushes it: a raw file, or a
// qcow2 file without a backing file. Clusters of zeros are left out. Progress phase "flatten".
void WriteFlat(const Context& ctx, const DiskImage& image, DiskFormat format, int fd);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_IMAGE_WRITER_H_
