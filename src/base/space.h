// SPDX-License-Identifier: Apache-2.0
//
// Reports how much space a complete operation needs if the file system is full.

#ifndef MSB_SRC_BASE_SPACE_H_
#define MSB_SRC_BASE_SPACE_H_

#include <algorithm>
#include <cstdint>

#include "src/base/file.h"
#include "src/base/throw.h"

namespace msb::base {

// Returns the bytes that a file occupies on disk, but no more than its size.
inline std::uint64_t AllocatedBytes(const FileStamp& stamp) {
  return std::min(stamp.size, stamp.blocks * 512);
}

// Calls write, which writes the new file fd. If the file system is full, calls need, which returns
// the SpaceNeed of the complete file, empties the file, so that the message reports the space that
// the next attempt will find, and throws as ThrowNoSpace does.
template <typename Need, typename Write>
void ReportingSpace(int fd, const Need& need, const Write& write) {
  try {
    write();
  } catch (const Error& e) {
    if (!IsNoSpace(e.os_error())) throw;
    const SpaceNeed needed = need();
    try {
      Resize(fd, 0);
    } catch (const Error&) {
      // The message then reports fewer free bytes.
    }
    ThrowNoSpace("write", fd, needed, e.os_error());
  }
}

}  // namespace msb::base

#endif  // MSB_SRC_BASE_SPACE_H_
