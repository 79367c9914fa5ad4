// SPDX-License-Identifier: Apache-2.0

#include "src/disk/extents.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/throw.h"

namespace msb::disk {

namespace {

// The number of bytes to read at once where the file system does not report holes. Holes that are
// found by reading begin and end at multiples of it.
constexpr std::uint64_t kReadBlock = 64 << 10;

}  // namespace

bool IsZero(std::span<const std::byte> bytes) {
  // Compare the bytes with themselves, shifted by one: memcmp(3) is the fastest way.
  return bytes.empty() || (bytes[0] == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

std::optional<Extent> ExtentReader::Next() {
  ctx_.Check();
  if (position_ >= size_) return std::nullopt;
  if (reads_) return NextRead();
  const off_t data = lseek(fd_, static_cast<off_t>(position_), SEEK_DATA);
  if (data < 0) {
    if (errno == ENXIO) {  // A hole up to the end.
      position_ = size_;
      return std::nullopt;
    }
    if (!base::IsUnsupported(errno)) base::ThrowErrno("find the extents of", fd_);
    reads_ = true;
    return NextRead();
  }
  const auto start = static_cast<std::uint64_t>(data);
  if (start >= size_) {
    position_ = size_;
    return std::nullopt;
  }
  const off_t hole = lseek(fd_, data, SEEK_HOLE);
  if (hole < 0) base::ThrowErrno("find the extents of", fd_);
  const std::uint64_t end = std::min(static_cast<std::uint64_t>(hole), size_);
  if (end <= start) {
    base::Throw(ErrorKind::kIO,
                "{} shrank while it was read: stop the program that writes to it and try again",
                base::PathOf(fd_));
  }
  if (std::exchange(first_, false) && start == position_ && end == size_ && HidesHoles()) {
    reads_ = true;
    return NextRead();
  }
  position_ = end;
  return Extent{start, end - start};
}

// If a file system does not support SEEK_HOLE, the kernel reports the file as one extent of data. A
// local file system does support it, but may have allocated less than the size because it
// compresses.
bool ExtentReader::HidesHoles() const {
  constexpr std::uint64_t kBlocksUnit = 512;
  const base::FileStamp stamp = base::StampOf(fd_);
  return stamp.blocks * kBlocksUnit < stamp.size && !base::IsLocalFileSystem(fd_);
}

std::optional<Extent> ExtentReader::NextRead() {
  block_.resize(kReadBlock);
  std::uint64_t begin = position_;
  for (bool in_data = false; position_ < size_;) {
    ctx_.Check();
    const std::uint64_t block_end = (position_ / kReadBlock + 1) * kReadBlock;
    const std::uint64_t length = std::min(block_end, size_) - position_;
    base::ReadExactly(fd_, block_.data(), length, position_);
    const bool is_zero = IsZero(std::span(block_).first(length));
    if (in_data && is_zero) return Extent{begin, position_ - begin};
    if (!in_data && !is_zero) begin = position_;
    in_data = !is_zero;
    position_ += length;
    if (in_data && position_ == size_) return Extent{begin, size_ - begin};
  }
  return std::nullopt;
}

std::uint64_t CountDataBytes(const Context& ctx, int fd, std::uint64_t size) {
  std::uint64_t total = 0;
  ExtentReader extents(ctx, fd, size);
  while (const auto extent = extents.Next()) total += extent->length;
  return total;
}

}  // namespace msb::disk
