// SPDX-License-Identifier: Apache-2.0
//
// Parses the WWW-Authenticate header, in which a registry names the authentication schemes that it
// accepts (RFC 9110, section 11.6.1).

#ifndef MSB_SRC_REGISTRY_CHALLENGE_H_
#define MSB_SRC_REGISTRY_CHALLENGE_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace msb::registry {

// A Challenge represents one authentication scheme that a registry accepts.
struct Challenge {
  std::string scheme;  // In lower case, such as "basic" or "bearer".
  // The names are in lower case. If a name is repeated, the first value counts.
  std::map<std::string, std::string> parameters = {};

  // Returns the value of a parameter, or "".
  std::string Parameter(const std::string& name) const;
};

// Returns the challenges in the value of one header. Skips malformed parts.
std::vector<Challenge> ParseChallenges(std::string_view header);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_CHALLENGE_H_
