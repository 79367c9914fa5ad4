// SPDX-License-Identifier: Apache-2.0

#include "src/registry/failure.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "src/base/json.h"
#include "src/base/text.h"

namespace msb::registry {
namespace {

constexpr std::size_t kMaxKeptTokens = 64;
constexpr std::size_t kMaxMessage = 300;
constexpr std::size_t kMaxErrors = 3;  // How many errors of one response are shown.
constexpr std::size_t kMaxErrorValues = 1024;

std::string MemberText(const base::Json& object, const char* name) {
  if (!object.is_object()) return {};
  const auto found = object.find(name);
  return found == object.end() || !found->is_string() ? std::string() : found->get<std::string>();
}

// Returns "CODE: MESSAGE", or the one that is there.
std::string ErrorText(const base::Json& error) {
  const std::string code = MemberText(error, "code");
  const std::string message = MemberText(error, "message");
  return code + (code.empty() || message.empty() ? "" : ": ") + message;
}

// Returns the errors that the body of a response describes, or "" if it has none.
std::string RegistryMessage(const std::string& body) {
  base::Json root;
  try {
    root = base::ParseJson(body, kMaxErrorValues);
  } catch (const std::invalid_argument&) {
    return {};  // Often the HTML page of a proxy.
  }
  // Token servers have one error, in one of these forms.
  for (const char* name : {"error_description", "details", "message", "error"}) {
    if (std::string text = MemberText(root, name); !text.empty()) return text;
  }
  if (!root.is_object() || !root.contains("errors") || !root["errors"].is_array()) return {};
  const base::Json& errors = root["errors"];
  std::string text;
  for (std::size_t i = 0; i < std::min(errors.size(), kMaxErrors); ++i) {
    const std::string error = ErrorText(errors[i]);
    text += (text.empty() || error.empty() ? "" : "; ") + error;
  }
  return text;
}

// Returns text with each occurrence of the secret replaced.
std::string Without(std::string_view secret, std::string_view text) {
  std::string out;
  for (;;) {
    const std::size_t at = text.find(secret);
    out += text.substr(0, at);
    if (at == std::string_view::npos) return out;
    out += "***";
    text.remove_prefix(at + secret.size());
  }
}

}  // namespace

std::string Subject::ToString() const {
  return fmt::format("{} in repository '{}' of registry '{}'", request, base::Quoted(repository),
                     base::Quoted(registry));
}

Secrets::Secrets(std::vector<std::string> credentials) : credentials_(std::move(credentials)) {
  std::erase_if(credentials_, [](const std::string& secret) { return secret.empty(); });
}

void Secrets::AddToken(std::string token) {
  tokens_.push_back(std::move(token));
  if (tokens_.size() > kMaxKeptTokens) tokens_.pop_front();
}

std::string Secrets::RemovedFrom(std::string text) const {
  std::vector<std::string_view> secrets(credentials_.begin(), credentials_.end());
  secrets.insert(secrets.end(), tokens_.begin(), tokens_.end());
  // A secret may contain a shorter one, so the longest comes first.
  std::sort(secrets.begin(), secrets.end(),
            [](std::string_view a, std::string_view b) { return a.size() > b.size(); });
  for (const std::string_view secret : secrets) text = Without(secret, text);
  return text;
}

std::string Explain(const HttpResponse& response, const Secrets& secrets) {
  if (response.failure != HttpFailure::kNone) {
    return base::Quoted(secrets.RemovedFrom(response.reason), kMaxMessage);
  }
  const std::string message = secrets.RemovedFrom(RegistryMessage(response.body));
  if (message.empty()) return fmt::format("the status is {}", response.status);
  return fmt::format("the status is {}, '{}'", response.status, base::Quoted(message, kMaxMessage));
}

}  // namespace msb::registry
