// SPDX-License-Identifier: Apache-2.0

#include "tests/support/fed_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>
#include <utility>

namespace msb::test {
namespace {

bool WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

FedPipe::FedPipe(std::function<void(const Write& write)> feed) {
  std::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  reader_ = base::UniqueFd(ends[0]);
  feeder_ = std::jthread([feed = std::move(feed), fd = ends[1]] {
    const base::UniqueFd writer(fd);
    feed([fd](std::string_view bytes) { return WriteAll(fd, bytes); });
  });
}

std::string FedPipe::path() const { return "/dev/fd/" + std::to_string(reader_.get()); }

}  // namespace msb::test
