// SPDX-License-Identifier: Apache-2.0
//
// Parses URLs that registries send: where a blob is, where to upload one, and where to get a token.

#ifndef MSB_SRC_REGISTRY_URL_H_
#define MSB_SRC_REGISTRY_URL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace msb::registry {

// A Url represents an absolute URL with the scheme http or https.
struct Url {
  std::string scheme;      // "http" or "https".
  std::string host;        // In lower case; an IPv6 address is in brackets.
  std::uint16_t port = 0;  // The default port of the scheme if the text has none.
  std::string path;        // Begins with '/'.
  std::string query = {};  // Without the '?'. It may have a secret, so it must not be in a message.

  // Returns nullopt if text is longer than 16 KiB, is not an absolute URL with one of the two
  // schemes, has a user name, or has characters that a URL must not have. Drops the fragment.
  static std::optional<Url> Parse(std::string_view text);

  // Resolves location, the value of a Location header in a response from this URL, which may be
  // relative. Returns nullopt if the result is a URL that Parse would not accept.
  std::optional<Url> Resolve(std::string_view location) const;

  std::string ToString() const;
  // Returns scheme, host and port, for messages.
  std::string Origin() const;
  // Returns true if scheme, host and port are the same.
  bool SameOrigin(const Url& other) const;
  // Returns this URL with NAME=VALUE appended to its query. Encodes the value.
  Url WithParameter(std::string_view name, std::string_view value) const;
};

// Encodes text as the value of a parameter, in a query or in a form.
std::string EncodeParameter(std::string_view text);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_URL_H_
