// SPDX-License-Identifier: Apache-2.0

#include "src/registry/credentials.h"

#include <cstddef>
#include <string_view>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/registry/credential_helper.h"
#include "src/registry/docker_config.h"

namespace msb::registry {
namespace {

constexpr std::size_t kMaxSecret = 64 << 10;

// Describes what is wrong with the credentials without quoting from them. Returns an empty text if
// they are valid.
std::string_view ProblemOf(const Credentials& credentials) {
  if (credentials.username.find(':') != std::string::npos) return "the username contains a ':'";
  // A password may be a file of several lines. It is sent as Base64.
  if (base::HasControlCharacter(credentials.username) ||
      base::HasControlCharacter(credentials.identity_token)) {
    return "the username or the token contains a control character";
  }
  for (const std::string* text :
       {&credentials.username, &credentials.password, &credentials.identity_token}) {
    if (text->size() > kMaxSecret) return "they are longer than 64 KiB";
  }
  return {};
}

Credentials FromOptions(const RegistryOptions& options) {
  if (options.username.empty() || options.password.empty()) {
    base::Throw(ErrorKind::kInvalidArgument,
                "RegistryOptions has a {} but no {}; set both, or none to use those of 'docker "
                "login'",
                options.username.empty() ? "password" : "username",
                options.username.empty() ? "username" : "password");
  }
  Credentials credentials{
      .username = options.username, .password = options.password, .from_options = true};
  if (const auto problem = ProblemOf(credentials); !problem.empty()) {
    base::Throw(ErrorKind::kInvalidArgument,
                "the credentials in RegistryOptions are invalid: {}; correct them", problem);
  }
  return credentials;
}

}  // namespace

Credentials FindCredentials(const Context& ctx, const std::string& registry,
                            const RegistryOptions& options) {
  if (!options.username.empty() || !options.password.empty()) return FromOptions(options);
  const std::filesystem::path path = DockerConfigPath();
  if (path.empty()) return {};
  const DockerConfig config = ReadDockerConfig(path, registry);
  std::optional<Credentials> found;
  if (!config.helper.empty()) {
    found = CredentialHelper{.name = config.helper, .config = path.native()}.Get(ctx, registry);
  }
  if (!found) found = config.credentials;
  if (!found) return {};
  if (const auto problem = ProblemOf(*found); !problem.empty()) {
    base::Throw(ErrorKind::kInvalidConfig,
                "the credentials that {} has for registry '{}' are invalid: {}; run 'docker login "
                "{}' again",
                path.native(), registry, problem, registry);
  }
  return *found;
}

}  // namespace msb::registry
