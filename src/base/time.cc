// SPDX-License-Identifier: Apache-2.0

#include "src/base/time.h"

#include <fmt/core.h>

namespace msb::base {
namespace {

using std::chrono::days;
using std::chrono::sys_days;
using std::chrono::year_month_day;

constexpr std::uint32_t kSecond = 1'000'000'000;

// Consumes characters from the front of a text. ok becomes false at the first that does not fit.
struct Scanner {
  std::string_view rest;
  bool ok = true;

  unsigned Number(std::size_t digits) {
    unsigned value = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      if (rest.empty() || rest[0] < '0' || rest[0] > '9') return Fail();
      value = value * 10 + static_cast<unsigned>(rest[0] - '0');
      rest.remove_prefix(1);
    }
    return value;
  }

  void Expect(std::string_view any_of) {
    if (!Take(any_of)) Fail();
  }

  bool Take(std::string_view any_of) {
    if (rest.empty() || any_of.find(rest[0]) == std::string_view::npos) return false;
    rest.remove_prefix(1);
    return true;
  }

  unsigned Fail() {
    ok = false;
    rest = {};
    return 0;
  }
};

std::uint32_t ScanFraction(Scanner& scanner) {
  std::uint32_t nanoseconds = 0;
  std::uint32_t unit = kSecond / 10;
  if (scanner.rest.empty() || scanner.rest[0] < '0' || scanner.rest[0] > '9') scanner.Fail();
  while (!scanner.rest.empty() && scanner.rest[0] >= '0' && scanner.rest[0] <= '9') {
    nanoseconds += static_cast<std::uint32_t>(scanner.rest[0] - '0') * unit;
    unit /= 10;
    scanner.rest.remove_prefix(1);
  }
  return nanoseconds;
}

// Scans a date, one of the separators, and a time of day. Second 60 becomes second 59 with 10^9
// nanoseconds more.
UtcTime ScanDateTime(Scanner& scanner, std::string_view separators) {
  const unsigned year = scanner.Number(4);
  scanner.Expect("-");
  const unsigned month = scanner.Number(2);
  scanner.Expect("-");
  const unsigned day = scanner.Number(2);
  scanner.Expect(separators);
  const unsigned hour = scanner.Number(2);
  scanner.Expect(":");
  const unsigned minute = scanner.Number(2);
  scanner.Expect(":");
  unsigned second = scanner.Number(2);
  std::uint32_t nanoseconds = scanner.Take(".") ? ScanFraction(scanner) : 0;
  const year_month_day date{std::chrono::year(static_cast<int>(year)), std::chrono::month(month),
                            std::chrono::day(day)};
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) scanner.Fail();
  if (second == 60) {
    second = 59;
    nanoseconds += kSecond;
  }
  return {sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
              std::chrono::seconds(second),
          nanoseconds};
}

std::string FormatSeconds(const UtcTime& time, char separator) {
  const auto day = std::chrono::floor<days>(time.seconds);
  const year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time.seconds - day);
  return fmt::format("{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     separator, clock.hours().count(), clock.minutes().count(),
                     clock.seconds().count() + (time.nanoseconds >= kSecond ? 1 : 0));
}

}  // namespace

UtcTime UtcTime::Now() { return From(std::chrono::system_clock::now()); }

UtcTime UtcTime::From(std::chrono::system_clock::time_point time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto rest = std::chrono::duration_cast<std::chrono::nanoseconds>(time - seconds);
  return {seconds, static_cast<std::uint32_t>(rest.count())};
}

std::chrono::system_clock::time_point UtcTime::ToTimePoint() const {
  using std::chrono::system_clock;
  constexpr auto kMargin = std::chrono::seconds(2);
  if (seconds > std::chrono::floor<std::chrono::seconds>(system_clock::time_point::max()) - kMargin)
    return system_clock::time_point::max();
  if (seconds < std::chrono::ceil<std::chrono::seconds>(system_clock::time_point::min()))
    return system_clock::time_point::min();
  return system_clock::time_point(seconds) + std::chrono::nanoseconds(nanoseconds);
}

std::optional<UtcTime> ParseRfc3339(std::string_view text) {
  Scanner scanner{text};
  UtcTime time = ScanDateTime(scanner, "Tt ");
  if (!scanner.Take("Zz")) {
    const bool west = !scanner.rest.empty() && scanner.rest[0] == '-';
    scanner.Expect("+-");
    const unsigned hours = scanner.Number(2);
    scanner.Expect(":");
    const unsigned minutes = scanner.Number(2);
    if (hours > 23 || minutes > 59) scanner.Fail();
    const std::chrono::minutes offset(hours * 60 + minutes);
    time.seconds += west ? offset : -offset;
  }
  const year_month_day date(std::chrono::floor<days>(time.seconds));
  const bool in_range =
      date.year() >= std::chrono::year(0) && date.year() <= std::chrono::year(9999);
  if (!scanner.ok || !scanner.rest.empty() || !in_range) return std::nullopt;
  return time;
}

std::string FormatManifestTime(const UtcTime& time) {
  return fmt::format("{}.{:09}+00:00", FormatSeconds(time, 'T'), time.nanoseconds % kSecond);
}

std::string FormatDescriptorTime(const UtcTime& time) {
  std::string text = FormatSeconds(time, 'T');
  if (time.nanoseconds % kSecond != 0) {
    text += fmt::format(".{:09}", time.nanoseconds % kSecond);
    text.erase(text.find_last_not_of('0') + 1);
  }
  return text + "Z";
}

std::string FormatIndexTime(const UtcTime& time) {
  return fmt::format("{}.{:09}", FormatSeconds(time, ' '), time.nanoseconds % kSecond);
}

std::optional<UtcTime> ParseIndexTime(std::string_view text) {
  if (auto time = ParseRfc3339(text)) return time;
  // The seconds, or the time of day, may be left out.
  for (const std::string_view left_out : {"", ":00", " 00:00:00"}) {
    const std::string whole = std::string(text).append(left_out);
    Scanner scanner{whole};
    const UtcTime time = ScanDateTime(scanner, " Tt");
    if (scanner.ok && scanner.rest.empty()) return time;
  }
  return std::nullopt;
}

}  // namespace msb::base
