// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "msb/error.h"

namespace msb::program {
namespace {

std::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

int CodeOf(Color color) {
  switch (color) {
    case Color::kGreen:
      return 32;
    case Color::kYellow:
      return 33;
    case Color::kRed:
      return 31;
    case Color::kBold:
      return 1;
  }
  return 0;
}

int output_error = 0;

}  // namespace

void OpenStandardStreams() {
  for (const int fd : {0, 1, 2}) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest free descriptor is fd. Reading from 0 and writing to 1 and 2 fails with EBADF.
    if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd) return;
  }
}

bool IsTerminal(Stream stream) { return isatty(static_cast<int>(stream)) == 1; }

bool CanMoveCursor(Stream stream) {
  const std::string_view terminal = Environment("TERM");
  return IsTerminal(stream) && !terminal.empty() && terminal != "dumb";
}

std::size_t TerminalColumns(Stream stream) {
  winsize size{};
  if (ioctl(static_cast<int>(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

bool IsUtf8Locale() { return std::string_view(nl_langinfo(CODESET)) == "UTF-8"; }

std::string Colored(Color color, std::string_view text, Stream stream) {
  if (!CanMoveCursor(stream) || !Environment("NO_COLOR").empty()) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", CodeOf(color), text);
}

void Put(std::string_view text, Stream stream) {
  std::FILE* const file = stream == Stream::kError ? stderr : stdout;
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (!written && stream == Stream::kOutput && output_error == 0) output_error = errno;
}

int FlushOutput() {
  if (std::fflush(stdout) != 0 && output_error == 0) output_error = errno;
  return output_error;
}

std::string ReadInput(const Context& ctx, std::size_t limit) {
  constexpr int kPollMilliseconds = 50;
  std::string input;
  std::array<char, 1 << 16> buffer;
  for (;;) {
    ctx.Check();
    pollfd entry{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (poll(&entry, 1, kPollMilliseconds) == 0) continue;
    const ssize_t length = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (length == 0) return input;
    if (length < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (length < 0) {
      throw Error(ErrorKind::kIO,
                  fmt::format("cannot read standard input: {}; redirect it", std::strerror(errno)),
                  errno);
    }
    input.append(buffer.data(), static_cast<std::size_t>(length));
    if (input.size() > limit) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("standard input is longer than {} bytes; shorten it", limit));
    }
  }
}

}  // namespace msb::program
