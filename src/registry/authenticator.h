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
    // The value of the Authorization header. Empty: the header is not sent.
    std::string value = {};
    // True if the value cannot be renewed: if the registry refuses it, it refuses the access.
    bool is_fresh = false;
    // The response of the token server if it refused a token, and the URL of that server.
    std::shared_ptr<const HttpResponse> refusal = nullptr;
    std::string refused_by = {};
  };
  using Then = std::function<void(Authorization authorization)>;

  // base is the URL of the registry. find_credentials is called when the registry first demands
  // authentication; its exceptions are passed on. send makes the requests to token servers.
  Authenticator(Url base, std::function<Credentials()> find_credentials, SendFunction send);

  // Calls then with the authorization for a request, immediately or when a token has been granted.
  void Authorize(const RegistryRequest& request, Then then);
  // Does the same after the registry has refused the request. refused is its previous
  // authorization. Returns false if no other authorization is possible, without calling then.
  bool Renew(const RegistryRequest& request, const Authorization& refused,
             const HttpResponse& response, Then then);

  // Returns the next step for the user if the registry refuses a request.
  std::string NextStep(const Subject& subject) const;
  const Secrets& secrets() const { return secrets_; }

 private:
  enum class Scheme { kNone, kBasic, kBearer };

  void FindCredentials();
  // Remembers the scheme that the registry asks for. Returns false if none of them can be used.
  bool Learn(const RegistryRequest& request, const HttpResponse& response);
  void LearnBearer(const RegistryRequest& request, const Challenge& challenge);
  // Returns the scope to ask for: that of the request, and what the registry demands for it.
  std::string ScopeOf(const RegistryRequest& request) const;
  // Gets a token and calls then with it. Requests that wait for the same scope share one token.
  void FetchToken(const RegistryRequest& request, Then then);
  // Asks the token server. subject describes this request in messages.
  void AskForToken(const std::string& scope, const Subject& subject);
  RegistryRequest TokenRequest(const std::string& scope, const Subject& subject) const;
  // Handles the response to a token request for the scope, which subject describes.
  void TakeAnswer(const std::string& scope, const Subject& subject, TokenCache::Time asked,
                  HttpResponse response);

  const Url base_;
  const std::function<Credentials()> find_credentials_;
  const SendFunction send_;
  bool has_credentials_ = false;  // The fields from here to secrets_ are known.
  Credentials credentials_ = {};
  std::string basic_;  // The value of Authorization for Basic; empty without a password.
  Secrets secrets_;
  Scheme scheme_ = Scheme::kNone;
  Url realm_;  // The token server.
  std::string service_;
  std::map<std::string, std::string> demanded_;  // The last demanded scopes, by a request's scope.
  // The token server does not support POST, so the identity token is sent as a password.
  bool uses_get_ = false;
  TokenCache tokens_;
  std::map<std::string, std::vector<Then>> waiting_;  // By scope.
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_AUTHENTICATOR_H_
