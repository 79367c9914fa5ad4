// SPDX-License-Identifier: Apache-2.0
//
// Issues tokens for docker-registry, as the servers of large registries do.

#ifndef MSB_TESTS_REGISTRY_TOKEN_SERVER_H_
#define MSB_TESTS_REGISTRY_TOKEN_SERVER_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/docker_registry.h"

namespace msb::test {

struct TokenServerOptions {
  std::string user = {};
  std::string password = {};
  // How long the registry accepts a token. Its clock for tokens counts whole seconds.
  std::chrono::seconds lifetime = std::chrono::minutes(5);
  // The "expires_in" that is announced. Default: lifetime.
  std::optional<std::chrono::seconds> announced = {};
};

// A TokenServer is an HTTP server on a free port of 127.0.0.1 that gives everybody with the user
// and password all permissions they ask for.
class TokenServer {
 public:
  explicit TokenServer(const TokenServerOptions& options);
  TokenServer(const TokenServer&) = delete;
  TokenServer& operator=(const TokenServer&) = delete;
  ~TokenServer();

  // Returns what docker-registry must know about the server.
  TokenAuthority Authority() const;
  // Returns, for each token that was issued, its scopes in order.
  std::vector<std::vector<std::string>> Issued() const;
  // Returns the number of requests that were refused.
  int Refused() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_REGISTRY_TOKEN_SERVER_H_
