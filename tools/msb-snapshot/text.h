// SPDX-License-Identifier: Apache-2.0
//
// Formats values for people.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_TEXT_H_
#define MSB_TOOLS_MSB_SNAPSHOT_TEXT_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace msb::program {

// Returns text with its control characters, its invisible characters, and bytes that are not UTF-8,
// escaped ("\x1b"), so that a name, label or message that comes from an archive can neither control
// the terminal nor look like another one.
std::string Printable(std::string_view text);

// Returns a size such as "512 B", "16.0 MiB" or "1.2 TiB".
std::string HumanBytes(std::uint64_t bytes);

// Returns a duration such as "0:03", "12:34" or "1:02:03".
std::string HumanDuration(std::chrono::seconds duration);

// Parses a duration such as "90s", "12h", "30d" or "1d12h": numbers with the units s, m, h, d and
// w. Returns nullopt if text is malformed, or longer than 100,000 years.
std::optional<std::chrono::seconds> ParseDuration(std::string_view text);

// Returns a time such as "2026-11-23 12:59:23" in the local time zone.
std::string HumanTime(std::chrono::system_clock::time_point time);

// Returns a time in UTC as RFC 3339 with nanoseconds.
std::string Rfc3339(std::chrono::system_clock::time_point time);

// Returns "sha256:" and the first 12 hex digits of a digest.
std::string ShortDigest(std::string_view digest);

// Returns how many columns text takes on a terminal, by the locale of the program.
std::size_t Columns(std::string_view text);

// Returns "1 snapshot", "2 snapshots" and so on.
std::string Count(std::size_t number, std::string_view noun);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_TEXT_H_
