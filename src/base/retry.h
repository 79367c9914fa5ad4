// SPDX-License-Identifier: Apache-2.0
//
// Repeats system calls that a signal interrupts.

#ifndef MSB_SRC_BASE_RETRY_H_
#define MSB_SRC_BASE_RETRY_H_

#include <cerrno>

namespace msb::base {

// Makes a system call, and repeats it while it fails with EINTR. Returns its last result, with
// errno as the call left it.
template <typename Call>
auto Retry(const Call& call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

}  // namespace msb::base

#endif  // MSB_SRC_BASE_RETRY_H_
