// SPDX-License-Identifier: Apache-2.0

#include "src/registry/challenge.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "src/base/text.h"

namespace msb::registry {
namespace {

bool IsLetterOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool IsTokenCharacter(char c) {
  return IsLetterOrDigit(c) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// Reads the parts of a header from left to right.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  bool AtEnd() const { return text_.empty(); }

  void Skip(std::string_view characters) {
    text_.remove_prefix(std::min(text_.find_first_not_of(characters), text_.size()));
  }

  // Skips up to the next comma.
  void SkipElement() { text_.remove_prefix(std::min(text_.find(','), text_.size())); }

  bool Take(char c) {
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }

  // Takes a token, in lower case. Returns "" if the next character does not belong to a token.
  std::string TakeName() { return base::LowerCase(TakeToken()); }
  // Takes a token or a quoted string.
  std::optional<std::string> TakeValue() {
    if (!Take('"')) {
      std::string token(TakeToken());
      return token.empty() ? std::nullopt : std::optional(std::move(token));
    }
    std::string value;
    while (!text_.empty()) {
      char c = text_.front();
      text_.remove_prefix(1);
      if (c == '"') return value;
      if (c == '\\' && !text_.empty()) {
        c = text_.front();
        text_.remove_prefix(1);
      }
      value += c;
    }
    return std::nullopt;  // The quote at the end is missing.
  }

 private:
  std::string_view TakeToken() {
    const auto end = std::find_if_not(text_.begin(), text_.end(), IsTokenCharacter);
    const std::string_view token = text_.substr(0, static_cast<std::size_t>(end - text_.begin()));
    text_.remove_prefix(token.size());
    return token;
  }

  std::string_view text_;
};

}  // namespace

std::string Challenge::Parameter(const std::string& name) const {
  const auto found = parameters.find(name);
  return found == parameters.end() ? std::string() : found->second;
}

std::vector<Challenge> ParseChallenges(std::string_view header) {
  std::vector<Challenge> challenges;
  Reader reader(header);
  // Each element between commas is "SCHEME", "SCHEME NAME=VALUE" or "NAME=VALUE"; the last belongs
  // to the scheme before. Each turn takes at least one character.
  for (reader.Skip(" \t,"); !reader.AtEnd(); reader.SkipElement(), reader.Skip(" \t,")) {
    std::string name = reader.TakeName();
    if (name.empty()) continue;
    reader.Skip(" \t");
    if (!reader.Take('=')) {
      challenges.push_back({.scheme = std::move(name)});
      name = reader.TakeName();
      reader.Skip(" \t");
      if (name.empty() || !reader.Take('=')) continue;
    }
    reader.Skip(" \t");
    auto value = reader.TakeValue();
    if (value && !challenges.empty()) {
      challenges.back().parameters.emplace(std::move(name), *std::move(value));
    }
  }
  return challenges;
}

}  // namespace msb::registry
