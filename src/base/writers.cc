// SPDX-License-Identifier: Apache-2.0

#include "src/base/writers.h"

#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "src/base/file_system.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr auto kWriterPatience = std::chrono::milliseconds(500);
constexpr auto kWriterPause = std::chrono::milliseconds(2);

}  // namespace

std::optional<bool> HasWriter(int fd) {
  // If a process opens the file for writing while the lease is held, it waits until the lease is
  // released, and this process gets a signal. The default, SIGIO, would end this process; SIGURG is
  // ignored by default.
  if (fcntl(fd, F_SETSIG, SIGURG) != 0) return std::nullopt;
  if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
    fcntl(fd, F_SETLEASE, F_UNLCK);
    // Overlayfs and FUSE grant a lease on their own file, whatever is done to the underlying one.
    return IsLocalFileSystem(fd) ? std::optional(false) : std::nullopt;
  }
  if (errno == EAGAIN) return true;
  return std::nullopt;
}

std::optional<bool> HasLastingWriter(const Context& ctx, int fd) {
  const Context patience = ctx.WithTimeout(kWriterPatience);
  for (;;) {
    const std::optional<bool> answer = HasWriter(fd);
    if (!answer.value_or(false)) return answer;
    ctx.Check();
    if (patience.Done()) return answer;
    std::this_thread::sleep_for(kWriterPause);
  }
}

void RefuseWriter(ErrorKind kind, std::string_view file) {
  Throw(kind,
        "{} is open for writing or mapped in another program: stop that program ('fuser -v' finds "
        "it) and try again",
        file);
}

WriteWatch::WriteWatch(const Context& ctx, int fd) : fd_(fd) {
  const std::optional<bool> answer = HasLastingWriter(ctx, fd);
  had_writer_ = answer.value_or(false);
  const bool may_have_writer = answer.value_or(true);
  // Flush before taking the stamp, because on a network file system flushing changes the time of
  // modification. Flush again afterwards, because pages may have been dirtied in between, and
  // stores to these would not change the stamp.
  if (may_have_writer) Sync(fd);
  stamp_ = FreshStampOf(fd);
  if (may_have_writer) Sync(fd);
}

bool WriteWatch::Undisturbed(const Context& ctx) const {
  return !had_writer_ && FreshStampOf(fd_).IsUntouched(stamp_) &&
         !HasLastingWriter(ctx, fd_).value_or(false);
}

}  // namespace msb::base
