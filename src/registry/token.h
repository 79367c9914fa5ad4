// SPDX-License-Identifier: Apache-2.0
//
// Keeps the access tokens that the token server of a registry grants.

#ifndef MSB_SRC_REGISTRY_TOKEN_H_
#define MSB_SRC_REGISTRY_TOKEN_H_

#include <chrono>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>

namespace msb::registry {

// The longest response of a token server, in bytes.
inline constexpr std::size_t kMaxGrant = 256 << 10;

// A Grant is the response of a token server.
struct Grant {
  std::string token;
  // The lifetime in the response, limited to 60 s to one hour. Default: 60 s. A token that expires
  // earlier is renewed when the registry refuses it.
  std::chrono::seconds lifetime{60};
};

// Parses the response of a token server. Throws std::invalid_argument if it is malformed, or if the
// token has characters that HTTP does not allow. The message does not quote from the response.
Grant ParseGrant(std::string_view json);

// A TokenCache keeps a token for each scope, until shortly before the token expires.
class TokenCache {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // Returns the token for the scope, or "" if it is absent or expires soon.
  std::string Find(const std::string& scope, Time now) const;
  // Keeps the token that was granted for the scope, instead of an earlier one. asked is when the
  // token was asked for.
  void Put(const std::string& scope, const Grant& grant, Time asked);
  // Drops the token for the scope if it is this one.
  void Drop(const std::string& scope, std::string_view token);

 private:
  struct Token {
    std::string value;
    Time renew;  // When it must no longer be used.
  };

  std::map<std::string, Token> tokens_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_TOKEN_H_
