// SPDX-License-Identifier: Apache-2.0
//
// Reads all the data of a sparse file once, on all cores.
//
// The file is divided into aligned regions. Each worker takes the next region that has data, reads
// it and passes it to Process; the workers do this at the same time. Then the regions are passed to
// Commit, one after the other, in the order of the file. Holes are not read.

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

// The size of a region in bytes. Each worker holds one region in memory. The size is large enough
// for fast reads, and small enough that all workers together (16 at most) use less than 40 MiB.
inline constexpr std::uint64_t kRegionBytes = 2 << 20;
// The data of a region is padded with zeros, before and after, to multiples of this many bytes.
inline constexpr std::uint64_t kBlockBytes = 64 << 10;
// The number of bytes before Region::bytes that Process may overwrite.
inline constexpr std::size_t kRegionHeadroom = 64;

// A Region is a region of a file that has data.
struct Region {
  std::uint64_t offset = 0;  // Offset in the file; a multiple of kRegionBytes.
  // The content of the region, up to the end of the file. Blocks without data have undefined
  // content.
  std::span<std::byte> bytes;
  std::span<const Extent> data;  // Extents with data, at least one; offsets are in the file.
};

// A RegionConsumer receives the regions of a scan.
class RegionConsumer {
 public:
  virtual ~RegionConsumer() = default;
  // Called by several threads at the same time, in no particular order. Must not change the bytes.
  virtual void Process(const Region& /*region*/) {}
  // Called after Process, for one region at a time, in the order of their offsets.
  virtual void Commit(const Region& /*region*/) {}
};

// Reads the first size bytes of fd, from the byte start on, and passes the regions to consumer.
// Adds the bytes of data to meter, and checks the Context of meter also while it looks for data. An
// exception of the consumer or the meter ends the scan and is rethrown.
void ScanData(int fd, std::uint64_t size, base::ProgressMeter& meter, RegionConsumer& consumer,
              std::uint64_t start = 0);

// Works like ScanData, but reads exactly these ranges, even if they contain holes. They must be in
// order and must not overlap.
void ScanRanges(int fd, std::uint64_t size, std::span<const Extent> ranges,
                base::ProgressMeter& meter, RegionConsumer& consumer);

// Works like ScanData, but for the disk that a guest sees.
void ScanImage(const DiskImage& image, base::ProgressMeter& meter, RegionConsumer& consumer);

// A RegionStream delivers a file that arrives as a stream.
class RegionStream {
 public:
  virtual ~RegionStream() = default;
  // Delivers the next region that has data: sets offset and data, and fills those parts of bytes
  // that have data. bytes has room for a complete region. Returns false at the end. Called by one
  // thread at a time.
  virtual bool Next(std::uint64_t& offset, std::vector<Extent>& data,
                    std::span<std::byte> bytes) = 0;
  // Called when the scan has failed. A call of Next that is waiting in another thread must then
  // throw, and so must later calls.
  virtual void Stop() {}
};

// Works like ScanData, but for a file of size bytes that stream delivers.
void ScanStream(RegionStream& stream, std::uint64_t size, base::ProgressMeter& meter,
                RegionConsumer& consumer);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_SCAN_H_
