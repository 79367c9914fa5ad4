// Reading all the data of a sparse file once, on all cores.
//
// The file is cut into aligned regions. Each worker takes the next region that has data, reads it
// and has it processed, which several workers do at a time; then, in the order of the file and one
// at a time, each region is committed. Holes are not read.

#ifndef MSB_SRC_DISK_SCAN_H_
#define MSB_SRC_DISK_SCAN_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "src/base/progress.h"
#include "src/disk/disk_image.h"
#include "src/disk/extents.h"

namespace msb::disk {

// Bytes. A worker holds one region in memory: large enough for the disk, small enough that all
// workers together stay below 40 MiB.
inline constexpr std::uint64_t kRegionBytes = 2 << 20;
// Regions are filled with zeros around their data up to the next multiple of this.
inline constexpr std::uint64_t kBlockBytes = 64 << 10;
// Bytes before a region's first that Process may overwrite.
inline constexpr std::size_t kRegionHeadroom = 64;

struct Region {
  std::uint64_t offset = 0;  // In the file; a multiple of kRegionBytes.
  // The region's content, up to the end of the file. Blocks without data are undefined.
  std::span<std::byte> bytes;
  std::span<const Extent> data;  // Where it has data; not empty. Offsets in the file.
};

class RegionConsumer {
 public:
  virtual ~RegionConsumer() = default;
  // Called by several threads at a time, in no order. Must leave the bytes as they are.
  virtual void Process(const Region& /*region*/) {}
  // Called after Process, one region at a time, in the order of their offsets.
  virtual void Commit(const Region& /*region*/) {}
};

// Reads the first size bytes of fd. Adds the bytes of data to meter. What the consumer throws ends
// the scan and is rethrown.
void ScanData(int fd, std::uint64_t size, base::ProgressMeter& meter, RegionConsumer& consumer);

// As ScanData, but takes these ranges for the data, whatever holes they cover. They are in order
// and do not overlap.
void ScanRanges(int fd, std::uint64_t size, std::span<const Extent> ranges,
                base::ProgressMeter& meter, RegionConsumer& consumer);

// As ScanData, for what the guest of an image sees.
void ScanImage(const DiskImage& image, base::ProgressMeter& meter, RegionConsumer& consumer);

// A file that arrives as a stream.
class RegionStream {
 public:
  virtual ~RegionStream() = default;
  // Brings the next region that has data: sets offset and data, and fills bytes, which has room
  // for a whole region, where data says. False at the end. Called by one thread at a time.
  virtual bool Next(std::uint64_t& offset, std::vector<Extent>& data,
                    std::span<std::byte> bytes) = 0;
  // The scan has failed: a Next that waits on another thread must throw, and so must later ones.
  virtual void Stop() {}
};

// As ScanData, for a file of size bytes that stream brings.
void ScanStream(RegionStream& stream, std::uint64_t size, base::ProgressMeter& meter,
                RegionConsumer& consumer);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_SCAN_H_
