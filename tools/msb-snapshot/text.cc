// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <cwchar>
#include <system_error>
#include <utility>

namespace msb::program {
namespace {

// Returns true for the invisible characters that change the order or the look of other characters
// (U+200B to U+200F, U+202A to U+202E, U+2060 to U+2069, U+FEFF), given in UTF-8.
bool IsInvisible(std::string_view character) {
  if (character == "\xef\xbb\xbf") return true;
  if (character.size() != 3 || character[0] != '\xe2') return false;
  const auto last = static_cast<unsigned char>(character[2]);
  if (character[1] == '\x80')
    return (last >= 0x8b && last <= 0x8f) || (last >= 0xaa && last <= 0xae);
  return character[1] == '\x81' && last >= 0xa0 && last <= 0xa9;
}

// Returns the number of bytes of the printable character that text begins with: 0 for a control
// character (C0, DEL, or C1, which is U+0080 to U+009F), for an invisible one, and for a byte that
// is not valid UTF-8.
std::size_t PrintableLength(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return lead < 0x20 || lead == 0x7f ? 0 : 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool c1 = lead == 0xc2 && second < 0xa0;
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool surrogate = lead == 0xed && second >= 0xa0;
  const bool too_high = lead == 0xf4 && second >= 0x90;
  const bool invisible = IsInvisible(text.substr(0, length));
  return c1 || overlong || surrogate || too_high || invisible ? 0 : length;
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = PrintableLength(text);
    if (length == 0) {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
    } else {
      result += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return result;
}

std::string HumanBytes(std::uint64_t bytes) {
  constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be shown as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string HumanDuration(std::chrono::seconds duration) {
  const auto seconds = std::max<std::int64_t>(duration.count(), 0);
  if (seconds < 3600) return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
  return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

std::optional<std::chrono::seconds> ParseDuration(std::string_view text) {
  constexpr std::int64_t kDay = 86'400;
  constexpr std::int64_t kMost = std::int64_t{100'000} * 366 * kDay;
  static constexpr std::array<std::pair<char, std::int64_t>, 5> kUnits = {
      {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', kDay}, {'w', 7 * kDay}}};
  if (text.empty()) return std::nullopt;
  std::int64_t total = 0;
  while (!text.empty()) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || number < 0) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    const auto* unit = std::ranges::find(kUnits, text.empty() ? '\0' : text[0],
                                         &std::pair<char, std::int64_t>::first);
    if (unit == kUnits.end() || number > (kMost - total) / unit->second) return std::nullopt;
    total += number * unit->second;
    text.remove_prefix(1);
  }
  return std::chrono::seconds(total);
}

std::string HumanTime(std::chrono::system_clock::time_point time) {
  const std::time_t seconds =
      std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
  std::tm local{};
  if (localtime_r(&seconds, &local) == nullptr) return Rfc3339(time);
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", local);
}

std::string Rfc3339(std::chrono::system_clock::time_point time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const std::time_t seconds = whole.time_since_epoch().count();
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  const auto fraction = std::chrono::duration_cast<std::chrono::nanoseconds>(time - whole);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:09}Z", utc, fraction.count());
}

std::string ShortDigest(std::string_view digest) {
  constexpr std::size_t kShort = std::string_view("sha256:").size() + 12;
  return std::string(digest.substr(0, kShort));
}

std::size_t Columns(std::string_view text) {
  std::size_t columns = 0;
  std::mbstate_t state{};
  while (!text.empty()) {
    wchar_t character = 0;
    const std::size_t length = std::mbrtowc(&character, text.data(), text.size(), &state);
    // These bytes are not of the locale's encoding (the result is (size_t)-1 or -2), although the
    // terminal may show them as UTF-8.
    if (length == 0 || length > text.size()) {
      return columns + static_cast<std::size_t>(std::ranges::count_if(
                           text, [](char c) { return (c & '\xc0') != '\x80'; }));
    }
    columns += static_cast<std::size_t>(std::max(wcwidth(character), 0));
    text.remove_prefix(length);
  }
  return columns;
}

std::string Count(std::size_t number, std::string_view noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

}  // namespace msb::program
