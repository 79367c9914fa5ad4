#include "src/disk/extents.h"

#include <unistd.h>

#include <algorithm>

#include "src/base/throw.h"

namespace msb::disk {

std::optional<Extent> ExtentReader::Next() {
  if (position_ >= size_) return std::nullopt;
  const off_t data = lseek(fd_, static_cast<off_t>(position_), SEEK_DATA);
  if (data < 0) {
    const std::uint64_t start = std::exchange(position_, size_);
    if (errno == ENXIO) return std::nullopt;  // A hole up to the end.
    if (errno == EINVAL || errno == EOPNOTSUPP) return Extent{start, size_ - start};
    base::ThrowErrno("find the extents of", "an open file");
  }
  const auto start = static_cast<std::uint64_t>(data);
  if (start >= size_) {
    position_ = size_;
    return std::nullopt;
  }
  const off_t hole = lseek(fd_, data, SEEK_HOLE);
  if (hole < 0) base::ThrowErrno("find the extents of", "an open file");
  position_ = std::min(static_cast<std::uint64_t>(hole), size_);
  if (position_ <= start) base::Throw(ErrorKind::kIO, "the file shrinks while it is read");
  return Extent{start, position_ - start};
}

std::uint64_t CountDataBytes(const Context& ctx, int fd, std::uint64_t size) {
  std::uint64_t total = 0;
  ExtentReader extents(fd, size);
  for (std::size_t n = 0; const auto extent = extents.Next(); ++n) {
    if (n % 1024 == 0) ctx.Check();
    total += extent->length;
  }
  return total;
}

}  // namespace msb::disk
