// SPDX-License-Identifier: Apache-2.0

#include "src/base/output_stream.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "src/base/blocked_signal.h"
#include "src/base/poll.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

mode_t TypeOf(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) ThrowErrno("examine", fd);
  return status.st_mode & S_IFMT;
}

// Opens a named pipe. Waits until it has a reader.
UniqueFd OpenNamedPipe(const Context& ctx, const std::filesystem::path& path) {
  while (true) {
    ctx.Check();
    UniqueFd fd = OpenAt(AT_FDCWD, path.c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW);
    if (fd) return fd;
    if (errno != ENXIO && errno != EINTR) ThrowErrno("open", path.native());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace

std::optional<OutputStream> OutputStream::Open(const Context& ctx,
                                               const std::filesystem::path& path) {
  if (UniqueFd named = DuplicateNamed(path)) return OutputStream(std::move(named), path);
  struct stat status;
  if (lstat(path.c_str(), &status) != 0 || !S_ISFIFO(status.st_mode)) return std::nullopt;
  return OutputStream(OpenNamedPipe(ctx, path), path);
}

OutputStream::OutputStream(UniqueFd fd, std::filesystem::path path)
    : fd_(std::move(fd)), path_(std::move(path)), is_file_(TypeOf(fd_.get()) == S_IFREG) {}

std::size_t OutputStream::WriteSome(std::span<const std::byte> bytes) const {
  // A pipe or socket that is ready takes this many bytes at once, even if it is in blocking mode.
  constexpr std::size_t kAtOnce = PIPE_BUF;
  const std::size_t size = is_file_ ? bytes.size() : std::min(bytes.size(), kAtOnce);
  const ssize_t n = write(fd_.get(), bytes.data(), size);
  if (n >= 0) return static_cast<std::size_t>(n);
  if (errno == EINTR || errno == EAGAIN) return 0;
  if (is_file_) ThrowErrno("write", fd_.get());
  ThrowErrno("write", path_.native());
}

void OutputStream::Write(const Context& ctx, std::span<const std::byte> bytes) {
  const BlockedSignal guard(SIGPIPE);
  while (!bytes.empty()) {
    ctx.Check();
    if (!is_file_ && !PollBriefly(ctx, fd_.get(), POLLOUT)) continue;
    bytes = bytes.subspan(WriteSome(bytes));
  }
}

}  // namespace msb::base
