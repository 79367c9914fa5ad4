// SPDX-License-Identifier: Apache-2.0

#include "src/registry/url.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>

#include "src/base/text.h"
#include "src/registry/reference.h"

namespace msb::registry {
namespace {

constexpr std::size_t kMaxUrl = 16 << 10;

// Returns true if a URL may contain the character. Accepts some that must be encoded, because not
// all registries do that, but not '\', because programs disagree about its meaning.
bool IsUrlCharacter(char c) {
  return c > ' ' && c < 0x7f && std::string_view("\"<>\\").find(c) == std::string_view::npos;
}

std::uint16_t DefaultPort(std::string_view scheme) { return scheme == "https" ? 443 : 80; }

// Removes the part of text that ends before the first of the delimiters, and returns it.
std::string_view TakeUntil(std::string_view& text, std::string_view delimiters) {
  const std::size_t end = std::min(text.find_first_of(delimiters), text.size());
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(end);
  return taken;
}

// Sets host and port of the URL. Returns false if authority is not HOST or HOST:PORT.
bool SetAuthority(Url& url, std::string_view authority) {
  const std::string lower = base::LowerCase(authority);
  // The same rules as for registries, which exclude user names. The names of some storage servers
  // contain a '_', unlike those of registries.
  std::string without_underscores = lower;
  std::replace(without_underscores.begin(), without_underscores.end(), '_', 'x');
  if (!IsRegistry(without_underscores)) return false;
  url.port = DefaultPort(url.scheme);
  const auto [host, port] = SplitPort(lower);
  if (port) url.port = static_cast<std::uint16_t>(std::stoi(std::string(*port)));
  url.host = host;
  return true;
}

}  // namespace

std::optional<Url> Url::Parse(std::string_view text) {
  if (text.size() > kMaxUrl) return std::nullopt;
  if (!std::all_of(text.begin(), text.end(), IsUrlCharacter)) return std::nullopt;
  text = text.substr(0, text.find('#'));
  Url url;
  url.scheme = base::LowerCase(TakeUntil(text, ":"));
  if (url.scheme != "http" && url.scheme != "https") return std::nullopt;
  if (!text.starts_with("://")) return std::nullopt;
  text.remove_prefix(3);
  if (!SetAuthority(url, TakeUntil(text, "/?"))) return std::nullopt;
  url.path = TakeUntil(text, "?");
  if (url.path.empty()) url.path = "/";
  if (!text.empty()) url.query = text.substr(1);
  return url;
}

std::optional<Url> Url::Resolve(std::string_view location) const {
  // A scheme is what precedes a ':' that comes before any other delimiter.
  const std::size_t delimiter = location.find_first_of(":/?#");
  if (delimiter != std::string_view::npos && location[delimiter] == ':') return Parse(location);
  if (location.starts_with("//")) return Parse(scheme + ":" + std::string(location));
  if (location.starts_with('/')) return Parse(Origin() + std::string(location));
  if (location.empty() || location.starts_with('?')) {
    return Parse(Origin() + path + std::string(location));
  }
  return Parse(Origin() + path.substr(0, path.rfind('/') + 1) + std::string(location));
}

std::string Url::Origin() const {
  if (port == DefaultPort(scheme)) return fmt::format("{}://{}", scheme, host);
  return fmt::format("{}://{}:{}", scheme, host, port);
}

std::string Url::ToString() const {
  return fmt::format("{}{}{}{}", Origin(), path, query.empty() ? "" : "?", query);
}

bool Url::SameOrigin(const Url& other) const {
  return scheme == other.scheme && host == other.host && port == other.port;
}

Url Url::WithParameter(std::string_view name, std::string_view value) const {
  Url url = *this;
  if (!url.query.empty()) url.query += '&';
  url.query += fmt::format("{}={}", name, EncodeParameter(value));
  return url;
}

std::string EncodeParameter(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-._~").find(c) != std::string_view::npos;
    if (plain) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

}  // namespace msb::registry
