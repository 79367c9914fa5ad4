// The three ways in which snapshots write a time.

#ifndef MSB_SRC_BASE_TIME_H_
#define MSB_SRC_BASE_TIME_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace msb::base {

// A moment in UTC. A leap second is second 59 with nanoseconds of 10^9 and more.
struct UtcTime {
  std::chrono::sys_seconds seconds;
  std::uint32_t nanoseconds = 0;

  static UtcTime Now();
  static UtcTime From(std::chrono::system_clock::time_point time);
  // The nearest that system_clock, which spans the years 1678 to 2261, can tell.
  std::chrono::system_clock::time_point ToTimePoint() const;
};

// RFC 3339 with years 0000 to 9999; fraction digits after the ninth are dropped. Nothing if text is
// none.
std::optional<UtcTime> ParseRfc3339(std::string_view text);

// As manifest.json writes it: "2026-11-23T12:58:59.427654752+00:00".
std::string FormatManifestTime(const UtcTime& time);
// As snapshot.json has it, canonical: "2026-11-23T12:59:23.02858503Z".
std::string FormatDescriptorTime(const UtcTime& time);
// As the index has it: "2026-11-23 12:59:23.028585030".
std::string FormatIndexTime(const UtcTime& time);
// Reads what FormatIndexTime writes, and any other form of SQLite's date and time with a date.
std::optional<UtcTime> ParseIndexTime(std::string_view text);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_TIME_H_
