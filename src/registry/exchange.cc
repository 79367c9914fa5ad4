// SPDX-License-Identifier: Apache-2.0

#include "src/registry/exchange.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "src/base/throw.h"
#include "src/registry/retry.h"
#include "src/registry/session.h"

namespace msb::registry {
namespace {

constexpr int kMaxRedirects = 10;
// One for the scheme, one for a token that another request has got since, and one for a new token.
constexpr int kMaxRenewals = 3;

bool IsRefusal(const HttpResponse& response) {
  return response.failure == HttpFailure::kNone &&
         (response.status == 401 || response.status == 403);
}

// Returns true if the response is that of a server that requires TLS to a request without it. There
// is no standard response; these texts are from Go's net/http, nginx and Apache.
bool RequiresTls(const HttpResponse& response) {
  if (response.failure != HttpFailure::kNone || response.status != 400) return false;
  constexpr std::string_view kAnswers[] = {"HTTP request to an HTTPS server",
                                           "plain HTTP request was sent to HTTPS port",
                                           "speaking plain HTTP to an SSL-enabled server port"};
  return std::ranges::any_of(kAnswers, [&](std::string_view answer) {
    return response.body.find(answer) != std::string::npos;
  });
}

}  // namespace

Exchange::Exchange(Session& session, RegistryRequest request, Answered answered)
    : session_(session),
      request_(std::move(request)),
      answered_(std::move(answered)),
      hop_(request_.url) {}

void Exchange::Begin() {
  hop_ = request_.url;
  redirects_ = 0;
  left_registry_ = false;
  Attempt();
}

void Exchange::Attempt() {
  left_registry_ = left_registry_ || !hop_.SameOrigin(request_.url);
  if (left_registry_) return Transmit({});
  session_.Admit([self = shared_from_this()] { self->Authorize(); });
}

void Exchange::Authorize() {
  if (request_.authorization) {
    return Transmit({.value = *request_.authorization, .is_fresh = true});
  }
  session_.authenticator().Authorize(
      request_, [self = shared_from_this()](Authenticator::Authorization authorization) {
        self->Transmit(std::move(authorization));
      });
}

void Exchange::Transmit(Authenticator::Authorization authorization) {
  if (authorization.refusal) {
    if (!request_.reports_refusals) {
      ThrowUnauthorized("the token server " + authorization.refused_by, *authorization.refusal);
    }
    return answered_(*authorization.refusal);
  }
  HttpRequest request{.method = request_.method,
                      .url = hop_,
                      .headers = request_.headers,
                      .body = request_.body,
                      .limit = request_.limit};
  if (!authorization.value.empty()) {
    request.headers.push_back("Authorization: " + authorization.value);
  }
  sent_ = std::move(authorization);
  session_.Transfer(std::move(request), [self = shared_from_this()](HttpResponse response) {
    self->OnResponse(std::move(response));
  });
}

void Exchange::OnResponse(HttpResponse response) {
  CheckFailure(response);
  if (IsFollowed(response)) return Follow(response);
  if (response.status == 401 && !left_registry_ && TryOtherAuthorization(response)) return;
  // A redirect often leads to a URL that expires soon, so another attempt may get a valid one.
  if (IsTransient(response) || (IsRefusal(response) && left_registry_)) {
    if (request_.reports_failures) return answered_(std::move(response));
    return session_.Repeat(repetitions_, request_.subject, response,
                           [self = shared_from_this()] { self->Begin(); });
  }
  const bool is_reported =
      request_.reports_refusals || (request_.reports_forbidden && response.status == 403);
  if (IsRefusal(response) && !is_reported) ThrowUnauthorized("the registry", response);
  // A response of the token server, whose requests have no scope, does not count as progress
  // either.
  if (!IsRefusal(response) && !request_.scope.empty() && !request_.is_repeated) session_.OnAnswer();
  answered_(std::move(response));
}

void Exchange::CheckFailure(const HttpResponse& response) const {
  if (hop_.scheme == "http" && RequiresTls(response)) {
    session_.ThrowUnavailable(
        request_.subject, response,
        "the registry requires HTTPS, but the request used plain HTTP; for a loopback address, set "
        "RegistryOptions::ca_file (msb-snapshot: --ca-file) to the certificate of the authority "
        "that signed the registry's, and for any other, do not set RegistryOptions::plain_http "
        "(msb-snapshot: --plain-http)");
  }
  switch (response.failure) {
    case HttpFailure::kNone:
    case HttpFailure::kConnection:
      return;
    case HttpFailure::kTrust:
      session_.ThrowUnavailable(
          request_.subject, response,
          "if an authority of your own signed the certificate, set RegistryOptions::ca_file "
          "(msb-snapshot: --ca-file) to that authority's certificate");
    case HttpFailure::kNotTls:
      session_.ThrowUnavailable(request_.subject, response,
                                "the registry does not use HTTPS; set RegistryOptions::plain_http "
                                "(msb-snapshot: --plain-http) if anyone on the network may read "
                                "and change the data");
    case HttpFailure::kTooLong:
      break;
  }
  base::Throw(
      ErrorKind::kSnapshotIntegrity,
      "{} failed: the response is longer than {} bytes, or its header is longer than {}; check "
      "the registry and any proxy before it, one of which is damaged or hostile",
      request_.subject.ToString(), request_.limit, kMaxHttpHeader);
}

bool Exchange::TryOtherAuthorization(const HttpResponse& response) {
  if (request_.authorization || ++renewals_ > kMaxRenewals) return false;
  return session_.authenticator().Renew(
      request_, sent_, response,
      [self = shared_from_this()](Authenticator::Authorization authorization) {
        self->Transmit(std::move(authorization));
      });
}

bool Exchange::IsFollowed(const HttpResponse& response) const {
  if (response.failure != HttpFailure::kNone) return false;
  switch (response.status) {
    case 301:
    case 302:
    case 303:
      return request_.method == HttpMethod::kGet || request_.method == HttpMethod::kHead;
    case 307:
    case 308:
      // The body of a request with a fixed authorization may have a refresh token.
      return !(request_.authorization && request_.body);
    default:
      return false;
  }
}

void Exchange::Follow(const HttpResponse& response) {
  const auto refuse = [&](ErrorKind kind, std::string_view problem) {
    base::Throw(kind, "{} failed: {}; check the configuration of the registry",
                request_.subject.ToString(), problem);
  };
  const auto target = hop_.Resolve(response.Header("location"));
  if (!target) {
    refuse(ErrorKind::kSnapshotIntegrity,
           fmt::format("it is redirected (status {}) without a valid URL", response.status));
  }
  if (++redirects_ > kMaxRedirects) {
    refuse(ErrorKind::kRegistryUnavailable,
           fmt::format("it is redirected more than {} times", kMaxRedirects));
  }
  if (hop_.scheme == "https" && target->scheme != "https") {
    refuse(ErrorKind::kRegistryUnavailable, "it is redirected from HTTPS to HTTP");
  }
  hop_ = *target;
  Attempt();
}

void Exchange::ThrowUnauthorized(std::string_view by, const HttpResponse& response) const {
  base::Throw(ErrorKind::kRegistryUnauthorized, "{} was refused by {}: {}; {}",
              request_.subject.ToString(), by, session_.Explain(response),
              session_.authenticator().NextStep(request_.subject));
}

}  // namespace msb::registry
