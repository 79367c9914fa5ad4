// SPDX-License-Identifier: Apache-2.0

#include "src/registry/authenticator.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
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

// The longest scope of a challenge that is used, in bytes.
constexpr std::size_t kMaxScope = 4096;

TokenCache::Time Now() { return std::chrono::steady_clock::now(); }

std::string BearerValue(const std::string& token) { return "Bearer " + token; }

std::string BasicText(const Credentials& credentials) {
  if (credentials.username.empty()) return {};
  return base::Base64Encode(credentials.username + ":" + credentials.password);
}

// Returns the form in which an identity token is sent as a password. The user name is that of
// docker's helpers unless there is another one.
std::string IdentityText(const Credentials& credentials) {
  if (credentials.identity_token.empty()) return {};
  const std::string name = credentials.username.empty() ? "<token>" : credentials.username;
  return base::Base64Encode(name + ":" + credentials.identity_token);
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

// Returns true if a scope such as "repository:a:pull" is part of one such as
// "repository:a:pull,push".
bool IsPartOf(std::string_view scope, std::string_view other) {
  const std::size_t colon = scope.rfind(':');
  if (scope == other) return true;
  if (colon == std::string_view::npos || !other.starts_with(scope.substr(0, colon + 1))) {
    return false;
  }
  const std::string actions = fmt::format(",{},", other.substr(colon + 1));
  return actions.find(fmt::format(",{},", scope.substr(colon + 1))) != std::string::npos;
}

// Returns the scopes of a challenge that are not part of a request's scopes.
std::string MissingScopes(std::string_view demanded, std::string_view own) {
  std::string missing;
  ForEachScope(demanded, [&](std::string_view scope) {
    bool known = scope.empty();
    ForEachScope(own, [&](std::string_view other) { known = known || IsPartOf(scope, other); });
    if (!known) missing.append(missing.empty() ? "" : " ").append(scope);
  });
  return missing;
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

Authenticator::Authenticator(Url base, std::function<Credentials()> find_credentials,
                             SendFunction send)
    : base_(std::move(base)),
      find_credentials_(std::move(find_credentials)),
      send_(std::move(send)) {}

void Authenticator::FindCredentials() {
  if (has_credentials_) return;
  credentials_ = find_credentials_();
  has_credentials_ = true;
  const std::string text = BasicText(credentials_);
  if (!text.empty()) basic_ = "Basic " + text;
  // Includes each form in which the secrets are sent, because the registry may repeat it in a
  // response.
  secrets_ = Secrets({credentials_.password, credentials_.identity_token, text,
                      IdentityText(credentials_), EncodeParameter(credentials_.identity_token)});
}

void Authenticator::Authorize(const RegistryRequest& request, Then then) {
  switch (scheme_) {
    case Scheme::kNone:
      return then({});
    case Scheme::kBasic:
      return then({.value = basic_, .is_fresh = true});
    case Scheme::kBearer:
      break;
  }
  const std::string token = tokens_.Find(ScopeOf(request), Now());
  if (!token.empty()) return then({.value = BearerValue(token)});
  FetchToken(request, std::move(then));
}

bool Authenticator::Renew(const RegistryRequest& request, const Authorization& refused,
                          const HttpResponse& response, Then then) {
  const std::string asked = ScopeOf(request);
  const bool had_token = scheme_ == Scheme::kBearer;
  if (refused.is_fresh && !had_token) return false;
  if (!Learn(request, response)) return false;
  if (scheme_ == Scheme::kBasic) {
    if (refused.value == basic_) return false;
    then({.value = basic_, .is_fresh = true});
    return true;
  }
  const std::string scope = ScopeOf(request);
  // Another token for the same scope would not help either.
  if (refused.is_fresh && scope == asked) return false;
  const std::string token = tokens_.Find(scope, Now());
  if (!token.empty() && BearerValue(token) != refused.value) {
    then({.value = BearerValue(token)});  // Another request has renewed it.
    return true;
  }
  tokens_.Drop(scope, token);
  FetchToken(request, std::move(then));
  return true;
}

bool Authenticator::Learn(const RegistryRequest& request, const HttpResponse& response) {
  FindCredentials();
  const std::vector<Challenge> challenges = ChallengesOf(response);
  if (const Challenge* bearer = FindChallenge(challenges, "bearer")) {
    LearnBearer(request, *bearer);
    scheme_ = Scheme::kBearer;
    return true;
  }
  // Some registries do not name a scheme.
  const bool may_try = response.Header("www-authenticate").empty() && credentials_.from_options;
  if ((FindChallenge(challenges, "basic") == nullptr && !may_try) || basic_.empty()) return false;
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
  const std::string scope = challenge.Parameter("scope");
  if (scope.size() <= kMaxScope) demanded_[request.scope] = MissingScopes(scope, request.scope);
}

std::string Authenticator::ScopeOf(const RegistryRequest& request) const {
  const auto found = demanded_.find(request.scope);
  if (found == demanded_.end() || found->second.empty()) return request.scope;
  return request.scope + " " + found->second;
}

RegistryRequest Authenticator::TokenRequest(const std::string& scope,
                                            const Subject& subject) const {
  RegistryRequest token{.subject = subject,
                        .url = realm_,
                        .headers = {"Accept: application/json"},
                        .limit = kMaxGrant,
                        .authorization = basic_,
                        .reports_refusals = true};
  if (credentials_.identity_token.empty() || uses_get_) {
    if (uses_get_) token.authorization = "Basic " + IdentityText(credentials_);
    if (!service_.empty()) token.url = token.url.WithParameter("service", service_);
    ForEachScope(scope,
                 [&](std::string_view one) { token.url = token.url.WithParameter("scope", one); });
    return token;
  }
  // The password is not used if there is a refresh token (OAuth2, RFC 6749, section 6).
  token.method = HttpMethod::kPost;
  token.authorization = "";
  token.headers.emplace_back("Content-Type: application/x-www-form-urlencoded");
  token.body = std::make_shared<const std::string>(
      fmt::format("grant_type=refresh_token&client_id=msb&service={}&scope={}&refresh_token={}",
                  EncodeParameter(service_), EncodeParameter(scope),
                  EncodeParameter(credentials_.identity_token)));
  return token;
}

void Authenticator::FetchToken(const RegistryRequest& request, Then then) {
  const std::string scope = ScopeOf(request);
  const auto [waiting, is_first] = waiting_.try_emplace(scope);
  waiting->second.push_back(std::move(then));
  if (!is_first) return;
  Subject subject = request.subject;
  subject.request = fmt::format("request to {} for a token for the {}",
                                secrets_.RemovedFrom(realm_.Origin()), request.subject.request);
  AskForToken(scope, subject);
}

void Authenticator::AskForToken(const std::string& scope, const Subject& subject) {
  send_(TokenRequest(scope, subject), [this, scope, subject, asked = Now()](HttpResponse response) {
    TakeAnswer(scope, subject, asked, std::move(response));
  });
}

void Authenticator::TakeAnswer(const std::string& scope, const Subject& subject,
                               TokenCache::Time asked, HttpResponse response) {
  const bool lacks_post = response.status == 404 || response.status == 405;
  if (lacks_post && !credentials_.identity_token.empty() && !uses_get_) {
    uses_get_ = true;
    return AskForToken(scope, subject);
  }
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
  if (!has_credentials_ || credentials_.IsAnonymous()) {
    return fmt::format(
        "run 'docker login {}', or set RegistryOptions::username and password (msb-snapshot: "
        "--username and --password-stdin)",
        subject.registry);
  }
  return "check the username and the password, and whether this user may access the repository";
}

}  // namespace msb::registry
