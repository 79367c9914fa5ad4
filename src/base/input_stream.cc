// SPDX-License-Identifier: Apache-2.0

#include "src/base/input_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr int kPauseMilliseconds = 50;

}  // namespace

InputStream::InputStream(const std::filesystem::path& path)
    : path_(path), fd_(DuplicateNamed(path)) {
  if (!fd_) fd_ = OpenAt(AT_FDCWD, path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
  struct stat status;
  if (!fd_ && errno == ENOENT && !path.empty() && lstat(path.c_str(), &status) != 0) {
    throw Error(ErrorKind::kIO,
                fmt::format("cannot open {}: it is absent; correct the path", path.native()),
                ENOENT);
  }
  if (!fd_ || fstat(fd_.get(), &status) != 0) ThrowErrno("open", path.native());
  if (S_ISDIR(status.st_mode)) ThrowErrno("read", path.native(), EISDIR);
  is_file_ = S_ISREG(status.st_mode);
  if (!is_file_) return;
  size_ = static_cast<std::uint64_t>(status.st_size);
  // A descriptor that the program has read from continues where it is.
  position_ = static_cast<std::uint64_t>(std::max<off_t>(lseek(fd_.get(), 0, SEEK_CUR), 0));
}

bool InputStream::Await() const {
  if (is_file_) return true;
  pollfd request{fd_.get(), POLLIN, 0};
  const int ready = poll(&request, 1, kPauseMilliseconds);
  if (ready < 0 && errno != EINTR) ThrowErrno("wait for", path_.native());
  return ready > 0;
}

std::uint64_t InputStream::BytesInHole(std::uint64_t limit) const {
  if (position_ >= size_) return 0;
  const off_t data = lseek(fd_.get(), static_cast<off_t>(position_), SEEK_DATA);
  // If the file system cannot tell, the bytes are read, even if they are a hole.
  if (data < 0 && errno != ENXIO) return 0;
  const std::uint64_t end = data < 0 ? size_ : static_cast<std::uint64_t>(data);
  return end <= position_ ? 0 : std::min(limit, end - position_);
}

std::optional<std::size_t> InputStream::ReadSome(std::byte* buffer, std::size_t size) const {
  if (is_file_) {
    if (const std::uint64_t hole = BytesInHole(size); hole > 0) {
      std::fill_n(buffer, hole, std::byte{0});
      return hole;
    }
  }
  const ssize_t n = is_file_ ? pread(fd_.get(), buffer, size, static_cast<off_t>(position_))
                             : read(fd_.get(), buffer, size);
  if (n >= 0) return static_cast<std::size_t>(n);
  if (errno != EINTR && errno != EAGAIN) ThrowErrno("read", path_.native());
  return std::nullopt;
}

std::size_t InputStream::Read(std::span<std::byte> buffer, const std::function<void()>& check) {
  std::size_t done = 0;
  while (done < buffer.size()) {
    check();
    // Before its first writer, a named pipe has neither data nor an end.
    if (!Await()) continue;
    const auto n = ReadSome(buffer.data() + done, buffer.size() - done);
    if (!n) continue;
    if (*n == 0) break;
    done += *n;
    position_ += *n;
  }
  return done;
}

}  // namespace msb::base
