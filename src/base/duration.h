// SPDX-License-Identifier: Apache-2.0
//
// Formats durations for messages.

#ifndef MSB_SRC_BASE_DURATION_H_
#define MSB_SRC_BASE_DURATION_H_

#include <fmt/core.h>

#include <chrono>
#include <cstdint>
#include <ratio>
#include <string>

namespace msb::base {

// Returns a duration such as "100 ms", "2.5 s" or "30 s". One of a second or more is rounded to
// tenths of a second.
inline std::string FormatDuration(std::chrono::milliseconds duration) {
  if (duration < std::chrono::seconds(1)) return fmt::format("{} ms", duration.count());
  const auto tenths = std::chrono::round<std::chrono::duration<std::int64_t, std::deci>>(duration);
  const std::int64_t part = tenths.count() % 10;
  return fmt::format("{}{} s", tenths.count() / 10,
                     part == 0 ? std::string() : fmt::format(".{}", part));
}

}  // namespace msb::base

#endif  // MSB_SRC_BASE_DURATION_H_
