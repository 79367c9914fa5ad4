// SPDX-License-Identifier: Apache-2.0
//
// Parses references to what a registry holds: HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], the grammar of
// docker, but with a host that is always named.

#ifndef MSB_SRC_REGISTRY_REFERENCE_H_
#define MSB_SRC_REGISTRY_REFERENCE_H_

#include <optional>
#include <string>
#include <string_view>

#include "src/base/digest.h"

namespace msb::registry {

struct Reference {
  std::string registry;    // HOST or HOST:PORT; an IPv6 address is in brackets.
  std::string repository;  // One or more lower-case components, separated by '/'.
  std::string tag;  // "latest" unless the text has a tag. If digest is set, it has no effect.
  std::optional<base::Digest> digest;

  // Parses a reference. Throws kInvalidArgument if text is not one; the message says what is wrong.
  static Reference Parse(std::string_view text);

  // Returns the tag or, if it is set, the digest: the last part of the path of a manifest.
  std::string Target() const;
  // Returns the reference as text, with the digest if it is set, and otherwise with the tag.
  std::string ToString() const;
};

// Returns true if text is HOST or HOST:PORT, in lower case.
bool IsRegistry(std::string_view text);
// Returns true if text is the name of a repository: at most 255 bytes of lower-case components,
// separated by '/'.
bool IsRepository(std::string_view text);

// Returns true if text is a tag.
bool IsTag(std::string_view text);

// The host of a registry without the port, and the port.
struct HostAndPort {
  std::string_view host;  // An IPv6 address keeps its brackets.
  std::optional<std::string_view> port;
};
// Splits HOST or HOST:PORT at the colon. The result refers to registry.
HostAndPort SplitPort(std::string_view registry);

// Returns true if the host of a registry (HOST or HOST:PORT) is this machine: localhost, an address
// in 127.0.0.0/8, or [::1].
bool IsLoopback(std::string_view registry);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_REFERENCE_H_
