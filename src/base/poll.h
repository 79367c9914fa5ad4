// Waiting for a descriptor without being deaf to a cancellation.

#ifndef MSB_SRC_BASE_POLL_H_
#define MSB_SRC_BASE_POLL_H_

#include "msb/context.h"

namespace msb::base {

// Waits until one of events (POLLIN, POLLOUT) or a hang-up is there, but no longer than 50 ms and
// not past the deadline of ctx; the caller asks in a loop, and looks at ctx between. False if
// nothing is there. kIO.
bool PollBriefly(const Context& ctx, int fd, short events);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_POLL_H_
