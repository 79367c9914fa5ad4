// SPDX-License-Identifier: Apache-2.0

#include "src/registry/retry.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <system_error>

namespace msb::registry {
namespace {

// Parses digits only. A number that is too large becomes the largest one.
std::optional<std::uint32_t> ParseNumber(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::invalid_argument || end != text.data() + text.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) return UINT32_MAX;
  return number;
}

// Parses a date such as "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, section 5.6.7).
std::optional<std::chrono::sys_seconds> ParseHttpDate(std::string_view text) {
  constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  constexpr std::string_view kForm = "Sun, 06 Nov 1994 08:49:37 GMT";
  if (text.size() != kForm.size() || text.substr(3, 2) != ", " || !text.ends_with(" GMT")) {
    return std::nullopt;
  }
  const auto number = [&](std::size_t at, std::size_t size) {
    return ParseNumber(text.substr(at, size));
  };
  const auto day = number(5, 2);
  const auto month = std::find(kMonths.begin(), kMonths.end(), text.substr(8, 3));
  const auto year = number(12, 4);
  const auto hour = number(17, 2);
  const auto minute = number(20, 2);
  const auto second = number(23, 2);
  if (!day || month == kMonths.end() || !year || !hour || !minute || !second) return std::nullopt;
  const std::chrono::year_month_day date{
      std::chrono::year(static_cast<int>(*year)),
      std::chrono::month(static_cast<unsigned>(month - kMonths.begin() + 1)),
      std::chrono::day(*day)};
  if (!date.ok() || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  return std::chrono::sys_days(date) + std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
         std::chrono::seconds(*second);
}

}  // namespace

bool IsTransient(const HttpResponse& response) {
  if (response.failure != HttpFailure::kNone) return response.failure == HttpFailure::kConnection;
  return response.status == 408 || response.status == 429 || response.status / 100 == 5;
}

bool IsThrottled(const HttpResponse& response) {
  return response.failure == HttpFailure::kNone &&
         (response.status == 429 || response.status == 503);
}

std::chrono::milliseconds BackoffDelay(int repetition, std::minstd_rand& random) {
  constexpr std::chrono::milliseconds kLongest = std::chrono::seconds(30);
  constexpr int kDoublings = 6;  // 500 ms, doubled six times, are more than 30 s.
  const auto delay = std::min(
      kLongest, std::chrono::milliseconds(500) * (1 << std::clamp(repetition, 0, kDoublings)));
  return delay * std::uniform_int_distribution(75, 125)(random) / 100;
}

std::optional<std::chrono::seconds> ParseRetryAfter(std::string_view value,
                                                    std::chrono::sys_seconds now) {
  if (const auto seconds = ParseNumber(value)) return std::chrono::seconds(*seconds);
  const auto date = ParseHttpDate(value);
  if (!date) return std::nullopt;
  return std::max(*date - now, std::chrono::seconds(0));
}

}  // namespace msb::registry
