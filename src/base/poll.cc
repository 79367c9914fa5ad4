// SPDX-License-Identifier: Apache-2.0

#include "src/base/poll.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "src/base/throw.h"

namespace msb::base {

bool PollBriefly(const Context& ctx, int fd, short events) {
  std::chrono::milliseconds wait(50);
  // Round up: with a time-out of 0 ms the caller would spin until the deadline.
  if (const auto left = ctx.TimeLeft()) {
    wait = std::min(wait, std::chrono::ceil<std::chrono::milliseconds>(*left));
  }
  if (ctx.Done()) wait = std::chrono::milliseconds(0);
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  const int ready = poll(&entry, 1, static_cast<int>(wait.count()));
  if (ready < 0 && errno != EINTR) ThrowErrno("poll", "a descriptor");
  if (ready > 0 && (entry.revents & POLLNVAL) != 0) ThrowErrno("poll", "a descriptor", EBADF);
  return ready > 0;
}

}  // namespace msb::base
