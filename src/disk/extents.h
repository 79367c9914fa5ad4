// SPDX-License-Identifier: Apache-2.0
//
// Finds the ranges of a sparse file that contain data. The ranges between two extents, and after
// the last one, are holes: they read as zeros and take up no space.

#ifndef MSB_SRC_DISK_EXTENTS_H_
#define MSB_SRC_DISK_EXTENTS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "msb/context.h"

namespace msb::disk {

// An Extent is a range of bytes. Functions never return an empty Extent.
struct Extent {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  std::uint64_t end() const { return offset + length; }
};

// Finds the data extents of the first size bytes of an open file, in order, with SEEK_DATA and
// SEEK_HOLE (lseek(2)). On a file system that does not report holes, reads the file and treats
// blocks of 64 KiB that are all zeros as holes. Checks its Context before each of these steps,
// since both holes and data may be large.
class ExtentReader {
 public:
  // Begins at the byte start.
  ExtentReader(Context ctx, int fd, std::uint64_t size, std::uint64_t start = 0)
      : ctx_(std::move(ctx)), fd_(fd), size_(size), position_(start) {}

  // Returns the next extent, or nullopt after the last one. Throws kCancelled if the Context ends.
  std::optional<Extent> Next();

 private:
  // Implements Next by reading the file.
  std::optional<Extent> NextRead();
  // Returns true if the file seems to have holes that the file system does not report, because its
  // allocated size is less than its apparent size.
  bool HidesHoles() const;

  Context ctx_;
  int fd_;
  std::uint64_t size_;
  std::uint64_t position_;
  bool first_ = true;   // Next has not been called.
  bool reads_ = false;  // The file system does not report holes.
  std::vector<std::byte> block_;
};

// Returns true if all bytes are zero.
bool IsZero(std::span<const std::byte> bytes);

// Returns the number of bytes of data in the first size bytes of an open file. Throws kCancelled if
// ctx ends.
std::uint64_t CountDataBytes(const Context& ctx, int fd, std::uint64_t size);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_EXTENTS_H_
