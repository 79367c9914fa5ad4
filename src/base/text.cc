// SPDX-License-Identifier: Apache-2.0

#include "src/base/text.h"

#include <algorithm>

#include "src/base/throw.h"

namespace msb::base {
namespace {

// Returns the length of the UTF-8 sequence that text begins with, or 0 if that is invalid. Rejects
// overlong forms, surrogates and code points beyond U+10FFFF (RFC 3629).
std::size_t Utf8Length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned second = byte(1);
  const bool valid = (lead != 0xe0 || second >= 0xa0) && (lead != 0xed || second < 0xa0) &&
                     (lead != 0xf0 || second >= 0x90) && (lead != 0xf4 || second < 0x90);
  return valid ? length : 0;
}

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

bool HasControlCharacter(std::string_view text) {
  return std::any_of(text.begin(), text.end(), IsControl);
}

void CheckBareName(std::string_view what, std::string_view name, std::size_t max_bytes) {
  const auto refuse = [&](std::string_view rule) {
    Throw(ErrorKind::kInvalidConfig, "{} name '{}' is invalid: it must {}", what, Quoted(name),
          rule);
  };
  if (name.empty()) refuse("not be empty");
  if (name.size() > max_bytes) refuse(fmt::format("not be longer than {} bytes", max_bytes));
  if (name[0] == '.' || name[0] == '~') refuse(fmt::format("not begin with '{}'", name[0]));
  if (const auto at = name.find_first_of("/\\:"); at != std::string_view::npos) {
    refuse(fmt::format("not contain '{}'", name[at]));
  }
  if (!IsUtf8(name)) refuse("be UTF-8");
  if (HasControlCharacter(name)) refuse("not contain control characters");
}

bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

std::string Count(std::uint64_t number, std::string_view noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

std::string Quoted(std::string_view text, std::size_t max_bytes) {
  std::string out;
  while (!text.empty() && out.size() < max_bytes) {
    const std::size_t length = Utf8Length(text);
    if (length == 0 || IsControl(text[0])) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
    } else {
      out += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  if (!text.empty()) out += "…";
  return out;
}

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace msb::base
