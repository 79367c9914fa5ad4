// SPDX-License-Identifier: Apache-2.0

#include "src/disk/sparse_write.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>

#include "src/base/file.h"

namespace msb::disk {

void WriteSparse(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  std::size_t begin = 0;  // The first byte that is to be written.
  std::size_t end = 0;    // Up to here, the bytes from begin on are not zeros.
  const auto flush = [&] {
    if (end > begin) base::WriteExactly(fd, bytes.data() + begin, end - begin, offset + begin);
  };
  while (end < bytes.size()) {
    const std::uint64_t to_boundary = kHoleBytes - (offset + end) % kHoleBytes;
    const std::size_t step = std::min<std::uint64_t>(to_boundary, bytes.size() - end);
    if (IsZero(bytes.subspan(end, step))) {
      flush();
      begin = end + step;
    }
    end += step;
  }
  flush();
}

bool ShareRange(int source, int target, const Extent& range) {
  file_clone_range clone{.src_fd = source,
                         .src_offset = range.offset,
                         .src_length = range.length,
                         .dest_offset = range.offset};
  return ioctl(target, FICLONERANGE, &clone) == 0;
}

void ClearRange(int fd, const Extent& range) {
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset),
                static_cast<off_t>(range.length)) == 0) {
    return;
  }
  static constexpr std::array<std::byte, 64 << 10> kZeros{};
  for (std::uint64_t done = 0; done < range.length;) {
    const std::uint64_t step = std::min<std::uint64_t>(range.length - done, kZeros.size());
    base::WriteExactly(fd, kZeros.data(), step, range.offset + done);
    done += step;
  }
}

}  // namespace msb::disk
