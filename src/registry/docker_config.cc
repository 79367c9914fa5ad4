// SPDX-License-Identifier: Apache-2.0

#include "src/registry/docker_config.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "src/base/base64.h"
#include "src/base/fields.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::registry {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxConfig = 1 << 20;

// Returns the content of the file, or nullopt if it is absent. Unlike the files of a home, it may
// be a symbolic link.
std::optional<std::string> ReadConfig(const fs::path& path) {
  // Without O_NONBLOCK, opening a FIFO would block.
  const base::UniqueFd fd = base::OpenAt(AT_FDCWD, path.c_str(), O_RDONLY | O_NONBLOCK);
  if (!fd && (errno == ENOENT || errno == ENOTDIR)) return std::nullopt;
  if (!fd && errno == EACCES) {
    base::Throw(
        ErrorKind::kIO,
        "cannot read {}: Permission denied; this process runs as user {}: "
        "change the owner or the mode of the file, or set DOCKER_CONFIG to another directory",
        path.native(), geteuid());
  }
  if (!fd) base::ThrowErrno("open", path.native());
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    base::Throw(ErrorKind::kInvalidConfig,
                "{} must be a regular file; remove it, or set DOCKER_CONFIG to another directory",
                path.native());
  }
  auto content = base::ReadAll(fd.get(), kMaxConfig);
  if (!content) {
    base::Throw(ErrorKind::kInvalidConfig,
                "{} is longer than {} bytes; remove unneeded entries from it", path.native(),
                kMaxConfig);
  }
  return content;
}

// Returns what the parser says about the position of an error, without the text around it, which
// may be a password.
std::string WithoutExcerpt(const std::invalid_argument& e) {
  const std::string_view message = e.what();
  return std::string(message.starts_with("invalid JSON") ? message.substr(0, message.find(':'))
                                                         : message);
}

// Returns the member of an object, or null if it is absent or JSON's null. Throws
// std::invalid_argument if it is not an object.
const base::Json* Object(const base::Json& parent, const std::string& name) {
  const auto found = parent.find(name);
  if (found == parent.end() || found->is_null()) return nullptr;
  if (!found->is_object()) base::MalformedType(name, "an object", *found);
  return &*found;
}

// Returns the member of an object at path, or "" if it is absent.
std::string TextAt(const base::Json& parent, const std::string& name, const std::string& path) {
  const auto found = parent.find(name);
  if (found == parent.end() || found->is_null()) return {};
  if (!found->is_string()) base::MalformedType(path, "a string", *found);
  return found->get<std::string>();
}

// Returns true if the key of an entry in auths means the registry: HOST, https://HOST, or one of
// these with the path of a version of the protocol.
bool Means(std::string_view key, std::string_view registry) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (key.starts_with(scheme)) key.remove_prefix(scheme.size());
  }
  if (!key.starts_with(registry)) return false;
  key.remove_prefix(registry.size());
  for (const std::string_view path : {"", "/", "/v1", "/v1/", "/v2", "/v2/"}) {
    if (key == path) return true;
  }
  return false;
}

Credentials ParseAuth(const base::Json& entry, const std::string& path) {
  if (!entry.is_object()) base::MalformedType(path, "an object", entry);
  Credentials credentials{
      .username = TextAt(entry, "username", path + ".username"),
      .password = TextAt(entry, "password", path + ".password"),
      .identity_token = TextAt(entry, "identitytoken", path + ".identitytoken")};
  const std::string auth = TextAt(entry, "auth", path + ".auth");
  if (auth.empty()) return credentials;
  const auto decoded = base::Base64Decode(auth);
  const std::size_t colon = decoded ? decoded->find(':') : std::string::npos;
  if (colon == std::string::npos || colon == 0) {
    base::Malformed(path + ".auth", "must be the Base64 form of USERNAME:PASSWORD");
  }
  credentials.username = decoded->substr(0, colon);
  credentials.password = decoded->substr(colon + 1);
  // Some versions of docker pad the password.
  credentials.password.erase(credentials.password.find_last_not_of('\0') + 1);
  return credentials;
}

std::optional<Credentials> FindAuth(const base::Json& root, const std::string& registry) {
  const base::Json* auths = Object(root, "auths");
  if (auths == nullptr) return std::nullopt;
  auto found = auths->find(registry);
  for (auto entry = auths->begin(); found == auths->end() && entry != auths->end(); ++entry) {
    if (Means(entry.key(), registry)) found = entry;
  }
  if (found == auths->end()) return std::nullopt;
  // With a credential store, docker leaves an empty entry here.
  Credentials credentials =
      ParseAuth(*found, fmt::format("auths['{}']", base::Quoted(found.key())));
  if (credentials.IsAnonymous()) return std::nullopt;
  return credentials;
}

std::string FindHelper(const base::Json& root, const std::string& registry) {
  if (const base::Json* helpers = Object(root, "credHelpers")) {
    std::string helper = TextAt(*helpers, registry, fmt::format("credHelpers['{}']", registry));
    if (!helper.empty()) return helper;
  }
  return TextAt(root, "credsStore", "credsStore");
}

}  // namespace

fs::path DockerConfigPath() {
  const char* directory = std::getenv("DOCKER_CONFIG");
  if (directory != nullptr && *directory != '\0') return fs::path(directory) / "config.json";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return {};
  return fs::path(home) / ".docker" / "config.json";
}

DockerConfig ReadDockerConfig(const fs::path& path, const std::string& registry) {
  const auto content = ReadConfig(path);
  // Docker, too, accepts a file without content.
  if (!content || content->find_first_not_of(" \t\r\n") == std::string::npos) return {};
  try {
    const base::Json root = base::ParseJson(*content);
    if (!root.is_object()) base::MalformedType("the document", "an object", root);
    return {.helper = FindHelper(root, registry), .credentials = FindAuth(root, registry)};
  } catch (const std::invalid_argument& e) {
    base::Throw(ErrorKind::kInvalidConfig,
                "{} is not a configuration of docker: {}; correct it, or set DOCKER_CONFIG to "
                "another directory",
                path.native(), WithoutExcerpt(e));
  }
}

}  // namespace msb::registry
