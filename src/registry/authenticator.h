// SPDX-License-Identifier: Apache-2.0
//
// Authenticates requests to one registry: with the user's password (Basic), or with tokens that the
// registry's token server grants for it (Bearer), or not at all.

#ifndef MSB_SRC_REGISTRY_AUTHENTICATOR_H_
#define MSB_SRC_REGISTRY_AUTHENTICATOR_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/registry/challenge.h"
#include "src/registry/credentials.h"
#include "src/registry/failure.h"
#include "src/registry/registry_request.h"
#include "src/registry/token.h"
#include "src/registry/url.h"

namespace msb::registry {

class Authenticator {
 public:
  struct Authorization {
    std::string value = {};  // The value of the header Authorization; empty: none.
    // Whether there is no newer one: the registry refuses the access if it refuses this value.
    bool is_fresh = false;
    // The answer of the token server if it grants no token, and the URL of that server.
    std::shared_ptr<const HttpResponse> refusal = nullptr;
    std::string refused_by = {};
  };
  using Then = std::function<void(Authorization authorization)>;

  // base is the URL of the registry. send makes the requests to token servers.
  Authenticator(Url base, Credentials credentials, SendFunction send);

  // Calls then with the authorization for a request, at once or when a token has been granted.
  void Authorize(const RegistryRequest& request, Then then);
  // Does the same after the registry has refused the request, which had the authorization refused.
  // Returns false if no other authorization is possible, without calling then.
  bool Renew(const RegistryRequest& request, const std::string& refused,
             const HttpResponse& response, Then then);

  // Returns what the user can do if the registry refuses a request.
  std::string NextStep(const Subject& subject) const;
  const Secrets& secrets() const { return secrets_; }

 private:
  enum class Scheme { kNone, kBasic, kBearer };

  // Remembers what the registry asks for. Returns false if nothing of it is supported.
  bool Learn(const RegistryRequest& request, const HttpResponse& response);
  void LearnBearer(const RegistryRequest& request, const Challenge& challenge);
  // Gets a token, and calls then with it; once for all requests that wait for the same scope.
  void FetchToken(const RegistryRequest& request, Then then);
  RegistryRequest TokenRequest(const RegistryRequest& request) const;
  // Takes the answer to a token request for the scope.
  void TakeAnswer(const std::string& scope, const Subject& subject, TokenCache::Time asked,
                  HttpResponse response);

  const Url base_;
  const Credentials credentials_;
  const std::string basic_;  // The value of Authorization for Basic; empty without a password.
  const SendFunction send_;
  Secrets secrets_;
  Scheme scheme_ = Scheme::kNone;
  Url realm_;  // The token server.
  std::string service_;
  TokenCache tokens_;
  std::map<std::string, std::vector<Then>> waiting_;  // By scope.
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_AUTHENTICATOR_H_
