// SPDX-License-Identifier: Apache-2.0
//
// Passes on the failures of steps that must not make a call fail.

#ifndef MSB_SRC_VMM_WARN_H_
#define MSB_SRC_VMM_WARN_H_

#include <exception>
#include <functional>
#include <string>

namespace msb::vmm {

using Warn = std::function<void(std::string message)>;

// Runs a step, and passes a failure to warn. Returns whether the step succeeded.
inline bool TryStep(const std::function<void()>& step, const Warn& warn) noexcept {
  try {
    step();
    return true;
  } catch (const std::exception& e) {
    try {
      warn(e.what());
    } catch (...) {
      // There is no memory for the message.
    }
    return false;
  }
}

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_WARN_H_
