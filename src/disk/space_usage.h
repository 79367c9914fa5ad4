// SPDX-License-Identifier: Apache-2.0
//
// Measures the space that the files in a directory take.

#ifndef MSB_SRC_DISK_SPACE_USAGE_H_
#define MSB_SRC_DISK_SPACE_USAGE_H_

#include <cstdint>

#include "msb/context.h"

namespace msb::disk {

// All numbers are bytes. A file with several names in the directory counts once.
struct SpaceUsage {
  std::uint64_t apparent = 0;   // The sizes of the regular files, holes included.
  std::uint64_t allocated = 0;  // The blocks of the regular files and of the directories.
  // The blocks that deleting the directory would free: not those of files that have a hard link
  // elsewhere and, if the file system reports it (FIEMAP), not those that other files share.
  std::uint64_t exclusive = 0;
};

// Measures an open directory and everything beneath it. Does not follow symbolic links. Ignores
// entries that are removed meanwhile.
// Throws kIO if a directory or a regular file cannot be opened or examined.
// Throws kCancelled if ctx ends.
SpaceUsage MeasureDirectory(const Context& ctx, int dir);

// Returns how many bytes of an open file are in blocks that other files share (reflinks), as far as
// the file system reports it.
std::uint64_t CountSharedBytes(const Context& ctx, int fd);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_SPACE_USAGE_H_
