// SPDX-License-Identifier: Apache-2.0
//
// An Exchange makes one request until it has a final response: it follows redirects, authenticates,
// and repeats the request if it fails.

#ifndef MSB_SRC_REGISTRY_EXCHANGE_H_
#define MSB_SRC_REGISTRY_EXCHANGE_H_

#include <memory>
#include <string_view>

#include "src/registry/authenticator.h"
#include "src/registry/http_client.h"
#include "src/registry/registry_request.h"
#include "src/registry/url.h"

namespace msb::registry {

class Session;

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  // The session must outlive the exchange.
  Exchange(Session& session, RegistryRequest request, Answered answered);

  // Makes the first attempt. The exchange keeps itself alive until it is complete.
  void Begin();

 private:
  // Sends the request to hop_ as soon as the session allows it. Authenticates only as long as it
  // has not been redirected to another server, which must not choose what is requested with the
  // user's credentials.
  void Attempt();
  // Gets the authorization, and sends the request.
  void Authorize();
  // Sends the request to hop_ with this authorization.
  void Transmit(Authenticator::Authorization authorization);
  void OnResponse(HttpResponse response);
  // Throws if repeating the request would not help.
  void CheckFailure(const HttpResponse& response) const;
  // Handles the status 401 of the registry. Returns false if there is nothing else to try.
  bool TryOtherAuthorization(const HttpResponse& response);
  bool IsFollowed(const HttpResponse& response) const;
  void Follow(const HttpResponse& response);
  // by names the server that refused the request.
  [[noreturn]] void ThrowUnauthorized(std::string_view by, const HttpResponse& response) const;

  Session& session_;
  const RegistryRequest request_;
  const Answered answered_;
  Url hop_;  // Where the request is sent after redirects.
  int redirects_ = 0;
  bool left_registry_ = false;  // Whether the request was redirected to another server.
  int repetitions_ = 0;
  int renewals_ = 0;                   // How often another authorization was tried.
  Authenticator::Authorization sent_;  // The authorization of the last attempt.
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_EXCHANGE_H_
