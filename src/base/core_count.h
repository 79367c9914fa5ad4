// SPDX-License-Identifier: Apache-2.0
//
// Determines the number of threads that can run at the same time.

#ifndef MSB_SRC_BASE_CORE_COUNT_H_
#define MSB_SRC_BASE_CORE_COUNT_H_

#include <algorithm>
#include <thread>

#include "src/base/descriptor.h"

namespace msb::base {

// Returns the number of processor cores, at least 1.
inline unsigned CoreCount() {
  const StandardStreamGuard guard;  // The C library may open a file to count the cores.
  return std::max(1U, std::thread::hardware_concurrency());
}

}  // namespace msb::base

#endif  // MSB_SRC_BASE_CORE_COUNT_H_
