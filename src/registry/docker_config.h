// SPDX-License-Identifier: Apache-2.0
//
// Reads config.json, in which the docker client keeps credentials or the names of the programs that
// keep them.

#ifndef MSB_SRC_REGISTRY_DOCKER_CONFIG_H_
#define MSB_SRC_REGISTRY_DOCKER_CONFIG_H_

#include <filesystem>
#include <optional>
#include <string>

#include "src/registry/credentials.h"

namespace msb::registry {

// What config.json has for one registry.
struct DockerConfig {
  // The name of the credential helper, from credHelpers or credsStore. Empty: none.
  std::string helper = {};
  // The entry in auths.
  std::optional<Credentials> credentials = {};
};

// Returns the path of config.json: in the directory $DOCKER_CONFIG, or ~/.docker if that is not
// set. Returns an empty path if HOME is not set either.
std::filesystem::path DockerConfigPath();

// Returns what the file has for the registry; nothing if the file is absent.
// Throws kInvalidConfig if it is malformed, and kIO if it cannot be read.
DockerConfig ReadDockerConfig(const std::filesystem::path& path, const std::string& registry);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_DOCKER_CONFIG_H_
