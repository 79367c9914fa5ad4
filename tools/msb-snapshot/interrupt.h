// SPDX-License-Identifier: Apache-2.0
//
// Turns SIGINT, SIGTERM and SIGHUP into a cancellation.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_INTERRUPT_H_
#define MSB_TOOLS_MSB_SNAPSHOT_INTERRUPT_H_

#include <stop_token>

namespace msb::program {

// Starts a thread that waits for the signals. The first one requests a stop. One that comes more
// than a second later ends the process at once, as if there were no handler. Call once, before any
// other thread is started. From then on, a write to a closed pipe fails with EPIPE, and one beyond
// the limit of the size of files with EFBIG, instead of ending the process.
void WatchSignals();

// Returns the token that the first signal stops.
std::stop_token Interrupted();

// Returns the number of the first signal, or 0 if there was none.
int InterruptingSignal();

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_INTERRUPT_H_
