// SPDX-License-Identifier: Apache-2.0

#include "src/registry/reference.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <system_error>

#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::registry {
namespace {

constexpr std::size_t kMaxReference = 1024;
constexpr std::size_t kMaxHost = 253;  // The longest name of a host in the DNS.
constexpr std::size_t kMaxRepository = 255;
constexpr std::size_t kMaxTag = 128;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
bool IsLowerOrDigit(char c) { return IsLower(c) || IsDigit(c); }

// Calls is_valid with each part of text between separators. Returns true if all are valid.
template <typename IsValid>
bool AllParts(std::string_view text, char separator, const IsValid& is_valid) {
  for (;;) {
    const std::size_t end = text.find(separator);
    if (!is_valid(text.substr(0, end))) return false;
    if (end == std::string_view::npos) return true;
    text.remove_prefix(end + 1);
  }
}

bool IsHostLabel(std::string_view label) {
  return !label.empty() && label.size() <= 63 && IsLowerOrDigit(label.front()) &&
         IsLowerOrDigit(label.back()) && std::all_of(label.begin(), label.end(), [](char c) {
           return IsLowerOrDigit(c) || c == '-';
         });
}

// Parses the text between the brackets of an IPv6 address.
std::optional<in6_addr> ParseIpv6(std::string_view text) {
  in6_addr address{};
  if (inet_pton(AF_INET6, std::string(text).c_str(), &address) != 1) return std::nullopt;
  return address;
}

bool IsHost(std::string_view host) {
  if (host.starts_with('[')) {
    return host.size() > 2 && host.ends_with(']') &&
           ParseIpv6(host.substr(1, host.size() - 2)).has_value();
  }
  return host.size() <= kMaxHost && AllParts(host, '.', IsHostLabel);
}

bool IsPort(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port != 0 &&
         text.front() != '0';
}

// Removes from the beginning of component what may be between its letters and digits: ".", "_",
// "__", or any number of "-". Returns false if something else is there.
bool RemoveSeparator(std::string_view& component) {
  if (component.starts_with('-')) {
    component.remove_prefix(std::min(component.find_first_not_of('-'), component.size()));
    return true;
  }
  for (const std::string_view separator : {"__", "_", "."}) {
    if (component.starts_with(separator)) {
      component.remove_prefix(separator.size());
      return true;
    }
  }
  return false;
}

bool IsPathComponent(std::string_view component) {
  for (;;) {
    const auto end = std::find_if_not(component.begin(), component.end(), IsLowerOrDigit);
    if (end == component.begin()) return false;
    component.remove_prefix(static_cast<std::size_t>(end - component.begin()));
    if (component.empty()) return true;
    if (!RemoveSeparator(component)) return false;
  }
}

[[noreturn]] void Refuse(std::string_view text, std::string_view problem) {
  base::Throw(ErrorKind::kInvalidArgument,
              "reference '{}' is invalid: {}; it must have the form "
              "HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]",
              base::Quoted(text), problem);
}

[[noreturn]] void RefuseDigest(std::string_view text, std::string_view digest) {
  Refuse(text,
         fmt::format("'{}' is not a digest: it must be 'sha256:' and 64 lower-case hex digits",
                     base::Quoted(digest)));
}

// Refuses a user name, and a digest of another algorithm, without showing the text before the last
// '@': it may be a password, in which anything may occur.
void RefuseUser(std::string_view text) {
  std::size_t at = text.rfind('@');
  while (at != std::string_view::npos && text.substr(at).starts_with("@sha256:")) {
    at = at == 0 ? std::string_view::npos : text.rfind('@', at - 1);
  }
  if (at == std::string_view::npos) return;
  const std::string_view rest = text.substr(at + 1);
  const std::string shown = "…" + std::string(text.substr(at));
  // A digest has no '/', and follows a repository.
  const bool is_digest = rest.find('/') == std::string_view::npos &&
                         text.substr(0, at).find('/') != std::string_view::npos;
  if (is_digest) RefuseDigest(shown, rest);
  Refuse(shown, "it must not contain a user name; give it in the options or with 'docker login'");
}

// Refuses what people often write by mistake, with a message for each.
void RefuseMistakes(std::string_view text) {
  if (text.empty()) Refuse(text, "it is empty");
  if (text.size() > kMaxReference) {
    Refuse(text, fmt::format("it is longer than {} bytes", kMaxReference));
  }
  if (base::HasControlCharacter(text)) Refuse(text, "it contains a control character");
  if (const std::size_t scheme = text.find("://"); scheme != std::string_view::npos) {
    Refuse(text, fmt::format("leave out '{}'", base::Quoted(text.substr(0, scheme + 3))));
  }
}

// Throws unless the text before the first '/' names the host of a registry.
void CheckRegistry(std::string_view text, std::string_view registry) {
  const bool names_host =
      registry == "localhost" || registry.find_first_of(".:[") != std::string_view::npos;
  if (!names_host) {
    Refuse(text,
           "it names no registry; begin it with the host of the registry, which contains "
           "a '.' or a port, or is 'localhost'");
  }
  if (std::any_of(registry.begin(), registry.end(), IsUpper)) {
    Refuse(text, "the host must be in lower case");
  }
  if (!IsRegistry(registry)) {
    Refuse(text, fmt::format("'{}' is not a host with an optional port", base::Quoted(registry)));
  }
}

void CheckRepository(std::string_view text, std::string_view repository) {
  if (IsRepository(repository)) return;
  if (std::any_of(repository.begin(), repository.end(), IsUpper)) {
    Refuse(text, "the repository must be in lower case");
  }
  if (repository.size() > kMaxRepository) {
    Refuse(text, fmt::format("the repository is longer than {} bytes", kMaxRepository));
  }
  Refuse(text, fmt::format("'{}' is not a repository: its components consist of lower-case letters "
                           "and digits, with '.', '_', '__' or '-' between them",
                           base::Quoted(repository)));
}

std::optional<base::Digest> ParseDigest(std::string_view text, std::string_view digest) {
  auto parsed = base::Digest::Parse(digest);
  if (!parsed || parsed->algorithm() != "sha256") RefuseDigest(text, digest);
  return parsed;
}

}  // namespace

HostAndPort SplitPort(std::string_view registry) {
  std::size_t search_from = 0;
  if (registry.starts_with('[')) {
    const std::size_t close = registry.find(']');
    search_from = close == std::string_view::npos ? registry.size() : close;
  }
  const std::size_t colon = registry.find(':', search_from);
  if (colon == std::string_view::npos) return {.host = registry, .port = std::nullopt};
  return {.host = registry.substr(0, colon), .port = registry.substr(colon + 1)};
}

bool IsRegistry(std::string_view text) {
  const auto [host, port] = SplitPort(text);
  return IsHost(host) && (!port || IsPort(*port));
}

bool IsRepository(std::string_view text) {
  return text.size() <= kMaxRepository && AllParts(text, '/', IsPathComponent);
}

bool IsTag(std::string_view text) {
  const auto is_word = [](char c) { return IsLowerOrDigit(c) || IsUpper(c) || c == '_'; };
  return !text.empty() && text.size() <= kMaxTag && is_word(text.front()) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return is_word(c) || c == '.' || c == '-'; });
}

Reference Reference::Parse(std::string_view text) {
  RefuseUser(text);
  RefuseMistakes(text);
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) {
    Refuse(text,
           "it names no registry, or no repository; begin it with the host of the registry "
           "and a '/'");
  }
  Reference reference;
  reference.registry = text.substr(0, slash);
  CheckRegistry(text, reference.registry);
  std::string_view path = text.substr(slash + 1);
  if (const std::size_t at = path.find('@'); at != std::string_view::npos) {
    reference.digest = ParseDigest(text, path.substr(at + 1));
    path = path.substr(0, at);
  }
  const std::size_t colon = path.find(':');
  reference.tag = colon == std::string_view::npos ? "latest" : path.substr(colon + 1);
  if (!IsTag(reference.tag)) {
    Refuse(text, fmt::format("'{}' is not a tag: it must have 1 to {} letters, digits, '_', '.' "
                             "and '-', and not begin with '.' or '-'",
                             base::Quoted(reference.tag), kMaxTag));
  }
  reference.repository = path.substr(0, colon);
  CheckRepository(text, reference.repository);
  return reference;
}

std::string Reference::Target() const { return digest ? digest->ToString() : tag; }

std::string Reference::ToString() const {
  return fmt::format("{}/{}{}{}", registry, repository, digest ? '@' : ':', Target());
}

bool IsLoopback(std::string_view registry) {
  const std::string_view host = SplitPort(registry).host;
  if (host == "localhost") return true;
  if (host.starts_with('[') && host.ends_with(']')) {
    const auto address = ParseIpv6(host.substr(1, host.size() - 2));
    return address && IN6_IS_ADDR_LOOPBACK(&*address);
  }
  in_addr address{};
  return inet_pton(AF_INET, std::string(host).c_str(), &address) == 1 &&
         (ntohl(address.s_addr) >> 24) == 127;
}

}  // namespace msb::registry
