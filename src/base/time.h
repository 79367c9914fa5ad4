// SPDX-License-Identifier: Apache-2.0
//
// Parses and formats times in the three formats in which snapshots record them.

#ifndef MSB_SRC_BASE_TIME_H_
#define MSB_SRC_BASE_TIME_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace msb::base {

// A UtcTime represents a point in time in UTC. A leap second is represented by second 59 with 10^9
// nanoseconds or more.
struct UtcTime {
  std::chrono::sys_seconds seconds;
  std::uint32_t nanoseconds = 0;

  static UtcTime Now();
  static UtcTime From(std::chrono::system_clock::time_point time);
  // Returns the nearest time that system_clock can represent, which is in the years 1678 to 2261.
  std::chrono::system_clock::time_point ToTimePoint() const;
};

// Parses an RFC 3339 time with a year from 0000 to 9999. Fraction digits after the ninth are
// dropped. Returns nullopt if text is malformed.
std::optional<UtcTime> ParseRfc3339(std::string_view text);

// Formats a time as in manifest.json: "2026-11-23T12:58:59.427654752+00:00".
std::string FormatManifestTime(const UtcTime& time);
// Formats a time in the canonical form of snapshot.json: "2026-11-23T12:59:23.02858503Z".
std::string FormatDescriptorTime(const UtcTime& time);
// Formats a time as in the index: "2026-11-23 12:59:23.028585030".
std::string FormatIndexTime(const UtcTime& time);
// Parses a time in the format of FormatIndexTime, in RFC 3339 format, or in one of SQLite's formats
// without the seconds or the time of day.
std::optional<UtcTime> ParseIndexTime(std::string_view text);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_TIME_H_
