#include "src/base/poll.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "src/base/throw.h"

namespace msb::base {

bool PollBriefly(const Context& ctx, int fd, short events) {
  std::chrono::milliseconds wait(50);
  // Rounded up: a time-out of 0 ms just before the deadline would have the caller spin until then.
  if (const auto left = ctx.TimeLeft()) {
    wait = std::min(wait, std::chrono::ceil<std::chrono::milliseconds>(*left));
  }
  if (ctx.Done()) wait = std::chrono::milliseconds(0);
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  const int ready = poll(&entry, 1, static_cast<int>(wait.count()));
  if (ready < 0 && errno != EINTR) ThrowErrno("wait for", "an open descriptor");
  if (ready > 0 && (entry.revents & POLLNVAL) != 0) ThrowErrno("wait for", "a descriptor", EBADF);
  return ready > 0;
}

}  // namespace msb::base
