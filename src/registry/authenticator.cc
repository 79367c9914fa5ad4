// SPDX-License-Identifier: Apache-2.0

#include "src/registry/authenticator.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "src/base/base64.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/registry/reference.h"

namespace msb::registry {
namespace {

TokenCache::Time Now() { return std::chrono::steady_clock::now(); }

std::string BearerValue(const std::string& token) { return "Bearer " + token; }

std::string BasicText(const Credentials& credentials) {
  if (credentials.username.empty()) return {};
  return base::Base64Encode(credentials.username + ":" + credentials.password);
}

// Returns the challenges in all WWW-Authenticate headers of a response.
std::vector<Challenge> ChallengesOf(const HttpResponse& response) {
  std::vector<Challenge> challenges;
  for (const std::string_view header : response.Headers("www-authenticate")) {
    for (Challenge& challenge : ParseChallenges(header)) challenges.push_back(std::move(challenge));
  }
  return challenges;
}

const Challenge* FindChallenge(const std::vector<Challenge>& challenges, std::string_view scheme) {
  for (const Challenge& challenge : challenges) {
    if (challenge.scheme == scheme) return &challenge;
  }
  return nullptr;
}

// Calls function with each scope in a list that is separated by spaces.
template <typename Function>
void ForEachScope(std::string_view scopes, const Function& function) {
  while (!scopes.empty()) {
    const std::string_view scope = scopes.substr(0, scopes.find(' '));
    scopes.remove_prefix(std::min(scopes.size(), scope.size() + 1));
    function(scope);
  }
}

Grant GrantIn(const std::string& body, const Subject& subject) {
  try {
    return ParseGrant(body);
  } catch (const std::invalid_argument& e) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "{} failed: the response is malformed: {}; check the token server",
                subject.ToString(), e.what());
  }
}

}  // namespace

Authenticator::Authenticator(Url base, Credentials credentials, SendFunction send)
    : base_(std::move(base)),
      credentials_(std::move(credentials)),
      basic_(credentials_.username.empty() ? "" : "Basic " + BasicText(credentials_)),
      send_(std::move(send)),
      // In each form in which they are sent, because the registry may repeat what it got.
      secrets_({credentials_.password, credentials_.identity_token, BasicText(credentials_),
                EncodeParameter(credentials_.identity_token)}) {}

void Authenticator::Authorize(const RegistryRequest& request, Then then) {
  switch (scheme_) {
    case Scheme::kNone:
      return then({});
    case Scheme::kBasic:
      return then({.value = basic_, .is_fresh = true});
    case Scheme::kBearer:
      break;
  }
  const std::string token = tokens_.Find(request.scope, Now());
  if (!token.empty()) return then({.value = BearerValue(token)});
  FetchToken(request, std::move(then));
}

bool Authenticator::Renew(const RegistryRequest& request, const std::string& refused,
                          const HttpResponse& response, Then then) {
  if (!Learn(request, response)) return false;
  if (scheme_ == Scheme::kBasic) {
    if (refused == basic_) return false;
    then({.value = basic_, .is_fresh = true});
    return true;
  }
  const std::string token = tokens_.Find(request.scope, Now());
  if (!token.empty() && BearerValue(token) != refused) {
    then({.value = BearerValue(token)});  // Another request has renewed it.
    return true;
  }
  tokens_.Drop(request.scope, token);
  FetchToken(request, std::move(then));
  return true;
}

bool Authenticator::Learn(const RegistryRequest& request, const HttpResponse& response) {
  const std::vector<Challenge> challenges = ChallengesOf(response);
  if (const Challenge* bearer = FindChallenge(challenges, "bearer")) {
    LearnBearer(request, *bearer);
    scheme_ = Scheme::kBearer;
    return true;
  }
  if (FindChallenge(challenges, "basic") == nullptr || basic_.empty()) return false;
  scheme_ = Scheme::kBasic;
  return true;
}

void Authenticator::LearnBearer(const RegistryRequest& request, const Challenge& challenge) {
  const std::string text = challenge.Parameter("realm");
  const auto realm = Url::Parse(text);
  if (!realm) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "{} failed: the registry names a token server whose URL is invalid: '{}'; check "
                "the configuration of the registry",
                request.subject.ToString(), base::Quoted(secrets_.RemovedFrom(text)));
  }
  // A registry that is reached by HTTP may be tested with a token server on the same machine. In
  // all other cases, anyone on the network could read the password and the token.
  const bool is_safe =
      realm->scheme == "https" ||
      (base_.scheme == "http" &&
       (credentials_.IsAnonymous() || realm->host == base_.host || IsLoopback(realm->host)));
  if (!is_safe) {
    base::Throw(ErrorKind::kRegistryUnauthorized,
                "{} failed: the registry names the token server {}, to which no credentials are "
                "sent because it does not use HTTPS; configure the token server for HTTPS",
                request.subject.ToString(), secrets_.RemovedFrom(realm->Origin()));
  }
  realm_ = *realm;
  service_ = challenge.Parameter("service");
}

RegistryRequest Authenticator::TokenRequest(const RegistryRequest& request) const {
  RegistryRequest token{.subject = request.subject,
                        .url = realm_,
                        .headers = {"Accept: application/json"},
                        .limit = kMaxGrant,
                        .authorization = basic_,
                        .reports_refusals = true};
  token.subject.request =
      fmt::format("request to {} for a token for the {}", secrets_.RemovedFrom(realm_.Origin()),
                  request.subject.request);
  if (credentials_.identity_token.empty()) {
    if (!service_.empty()) token.url = token.url.WithParameter("service", service_);
    ForEachScope(request.scope, [&](std::string_view scope) {
      token.url = token.url.WithParameter("scope", scope);
    });
    return token;
  }
  // The password is not used if there is a refresh token (OAuth2, RFC 6749, section 6).
  token.method = HttpMethod::kPost;
  token.authorization = "";
  token.headers.emplace_back("Content-Type: application/x-www-form-urlencoded");
  token.body = std::make_shared<const std::string>(
      fmt::format("grant_type=refresh_token&client_id=msb&service={}&scope={}&refresh_token={}",
                  EncodeParameter(service_), EncodeParameter(request.scope),
                  EncodeParameter(credentials_.identity_token)));
  return token;
}

void Authenticator::FetchToken(const RegistryRequest& request, Then then) {
  const auto [waiting, is_first] = waiting_.try_emplace(request.scope);
  waiting->second.push_back(std::move(then));
  if (!is_first) return;
  RegistryRequest token = TokenRequest(request);
  Subject subject = token.subject;
  send_(std::move(token),
        [this, scope = request.scope, subject = std::move(subject), asked = Now()](
            HttpResponse response) { TakeAnswer(scope, subject, asked, std::move(response)); });
}

void Authenticator::TakeAnswer(const std::string& scope, const Subject& subject,
                               TokenCache::Time asked, HttpResponse response) {
  Authorization authorization{.is_fresh = true};
  if (response.IsSuccess()) {
    const Grant grant = GrantIn(response.body, subject);
    secrets_.AddToken(grant.token);
    tokens_.Put(scope, grant, asked);
    authorization.value = BearerValue(grant.token);
  } else {
    authorization.refusal = std::make_shared<const HttpResponse>(std::move(response));
    authorization.refused_by = secrets_.RemovedFrom(realm_.Origin());
  }
  // The requests that wait may need another token for the same scope.
  const std::vector<Then> waiting = std::move(waiting_.extract(scope).mapped());
  for (const Then& then : waiting) then(authorization);
}

std::string Authenticator::NextStep(const Subject& subject) const {
  if (credentials_.IsAnonymous()) {
    return fmt::format(
        "run 'docker login {}', or set RegistryOptions::username and password (msb-snapshot: "
        "--username and --password-stdin)",
        subject.registry);
  }
  return "check the username and the password, and whether this user may access the repository";
}

}  // namespace msb::registry
