// SPDX-License-Identifier: Apache-2.0
//
// Describes requests that failed. Text from a registry is not trusted: it is quoted and truncated,
// and credentials that it repeats are removed.

#ifndef MSB_SRC_REGISTRY_FAILURE_H_
#define MSB_SRC_REGISTRY_FAILURE_H_

#include <deque>
#include <string>
#include <vector>

#include "src/registry/http_client.h"

namespace msb::registry {

// Names a request in messages.
struct Subject {
  std::string registry;
  std::string repository;
  std::string request;  // Such as "GET of manifest 'latest'".

  // Returns "REQUEST in repository 'NAME' of registry 'HOST'".
  std::string ToString() const;
};

// The credentials and tokens of a client.
class Secrets {
 public:
  Secrets() = default;
  // Leaves out texts that are empty.
  explicit Secrets(std::vector<std::string> credentials);

  // Adds a token. Beyond 64 tokens, the oldest is forgotten.
  void AddToken(std::string token);
  // Returns text with each secret in it replaced by "***".
  std::string RemovedFrom(std::string text) const;

 private:
  std::vector<std::string> credentials_;
  std::deque<std::string> tokens_;
};

// Returns why a request failed: the reason of the failure, or the status and the registry's own
// message.
std::string Explain(const HttpResponse& response, const Secrets& secrets);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_FAILURE_H_
