#include "src/base/input_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr int kPauseMilliseconds = 50;

}  // namespace

InputStream::InputStream(const std::filesystem::path& path)
    : path_(path), fd_(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)) {
  struct stat status;
  if (!fd_ || fstat(fd_.get(), &status) != 0) ThrowErrno("open", path.native());
  if (S_ISDIR(status.st_mode)) ThrowErrno("read", path.native(), EISDIR);
  is_file_ = S_ISREG(status.st_mode);
  if (is_file_) size_ = static_cast<std::uint64_t>(status.st_size);
}

bool InputStream::Await() const {
  if (is_file_) return true;
  pollfd request{fd_.get(), POLLIN, 0};
  const int ready = poll(&request, 1, kPauseMilliseconds);
  if (ready < 0 && errno != EINTR) ThrowErrno("wait for", path_.native());
  return ready > 0;
}

std::size_t InputStream::Read(std::span<std::byte> buffer, const std::function<void()>& check) {
  std::size_t done = 0;
  while (done < buffer.size()) {
    check();
    // A pipe that nobody writes to yet has an end only when somebody did.
    if (!Await()) continue;
    const ssize_t n = read(fd_.get(), buffer.data() + done, buffer.size() - done);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) ThrowErrno("read", path_.native());
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

}  // namespace msb::base
