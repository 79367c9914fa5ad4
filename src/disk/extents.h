// Where a sparse file has data. Everything between two extents, and after the last, is a hole: it
// reads as zeros and takes no space.

#ifndef MSB_SRC_DISK_EXTENTS_H_
#define MSB_SRC_DISK_EXTENTS_H_

#include <cstdint>
#include <optional>

#include "msb/context.h"

namespace msb::disk {

// Bytes; never empty.
struct Extent {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  std::uint64_t end() const { return offset + length; }
};

// Finds the data extents of the first size bytes of an open file, in order, by SEEK_DATA and
// SEEK_HOLE (lseek(2)). On a file system without them all of the file is one extent.
class ExtentReader {
 public:
  // From the byte start on.
  ExtentReader(int fd, std::uint64_t size, std::uint64_t start = 0)
      : fd_(fd), size_(size), position_(start) {}

  std::optional<Extent> Next();

 private:
  int fd_;
  std::uint64_t size_;
  std::uint64_t position_;
};

// The bytes of data in the first size bytes of an open file.
std::uint64_t CountDataBytes(const Context& ctx, int fd, std::uint64_t size);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_EXTENTS_H_
