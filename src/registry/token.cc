// SPDX-License-Identifier: Apache-2.0

#include "src/registry/token.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/base/fields.h"
#include "src/base/json.h"

namespace msb::registry {
namespace {

constexpr std::chrono::seconds kShortestLifetime{60};
constexpr std::chrono::seconds kLongestLifetime = std::chrono::hours(1);
constexpr std::size_t kMaxToken = 32 << 10;  // A header of an HTTP request must not be longer.
constexpr std::size_t kMaxGrantValues = 1024;

base::Json ParseGrantJson(std::string_view json) {
  try {
    return base::ParseJson(json, kMaxGrantValues);
  } catch (const std::invalid_argument&) {
    throw std::invalid_argument("it is not JSON");  // The message of the parser quotes from it.
  }
}

std::chrono::seconds LifetimeIn(const base::Json& root) {
  const auto found = root.find("expires_in");
  if (found == root.end() || !found->is_number()) return kShortestLifetime;
  const double seconds =
      std::clamp(found->get<double>(), static_cast<double>(kShortestLifetime.count()),
                 static_cast<double>(kLongestLifetime.count()));
  return std::chrono::seconds(static_cast<std::int64_t>(seconds));
}

}  // namespace

Grant ParseGrant(std::string_view json) {
  const base::Json root = ParseGrantJson(json);
  if (!root.is_object()) throw std::invalid_argument("it is not a JSON object");
  Grant grant;
  // Token servers that follow OAuth2 call it access_token.
  for (const char* name : {"token", "access_token"}) {
    const auto found = root.find(name);
    if (found == root.end() || found->is_null() || !grant.token.empty()) continue;
    if (!found->is_string()) base::MalformedType(name, "a string", *found);
    grant.token = found->get<std::string>();
  }
  if (grant.token.empty()) throw std::invalid_argument("it has no token");
  if (grant.token.size() > kMaxToken) {
    throw std::invalid_argument("its token is longer than 32 KiB");
  }
  if (!std::all_of(grant.token.begin(), grant.token.end(),
                   [](char c) { return c > ' ' && c < 0x7f; })) {
    throw std::invalid_argument("its token has characters that HTTP does not allow");
  }
  grant.lifetime = LifetimeIn(root);
  return grant;
}

std::string TokenCache::Find(const std::string& scope, Time now) const {
  const auto found = tokens_.find(scope);
  return found == tokens_.end() || now >= found->second.renew ? std::string() : found->second.value;
}

void TokenCache::Put(const std::string& scope, const Grant& grant, Time asked) {
  tokens_[scope] = {.value = grant.token, .renew = asked + grant.lifetime * 9 / 10};
}

void TokenCache::Drop(const std::string& scope, std::string_view token) {
  const auto found = tokens_.find(scope);
  if (found != tokens_.end() && found->second.value == token) tokens_.erase(found);
}

}  // namespace msb::registry
