// SPDX-License-Identifier: Apache-2.0
//
// Waits for a descriptor in steps that are short enough to notice a cancellation.

#ifndef MSB_SRC_BASE_POLL_H_
#define MSB_SRC_BASE_POLL_H_

#include "msb/context.h"

namespace msb::base {

// Waits until fd has one of events (POLLIN, POLLOUT), an error or a hang-up, but no longer than 50
// ms and not past the deadline of ctx. Returns false if none of these has occurred. The caller must
// repeat the call, and check ctx in between. Throws kIO if poll(2) fails.
bool PollBriefly(const Context& ctx, int fd, short events);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_POLL_H_
