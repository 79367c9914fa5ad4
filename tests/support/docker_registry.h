// SPDX-License-Identifier: Apache-2.0
//
// Runs Debian's docker-registry on the loopback interface.

#ifndef MSB_TESTS_SUPPORT_DOCKER_REGISTRY_H_
#define MSB_TESTS_SUPPORT_DOCKER_REGISTRY_H_

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/certificates.h"
#include "tests/support/registry_storage.h"
#include "tests/support/support.h"

namespace msb::test {

// How docker-registry checks the tokens that a token server issues.
struct TokenAuthority {
  std::string realm;  // The URL of the token server.
  std::string service;
  std::string issuer;
  std::filesystem::path certificate;
};

struct DockerRegistryOptions {
  std::optional<Certificate> certificate = {};  // Uses TLS.
  // Requires this user and password (htpasswd) if user is not empty.
  std::string user = {};
  std::string password = {};
  std::optional<TokenAuthority> tokens = {};  // Requires tokens.
  // Where the directory of the storage is created. Default: where TempDir creates directories.
  std::filesystem::path parent = {};
};

// A DockerRegistry is a registry with an empty storage on a free port of 127.0.0.1. It is killed
// when it is destroyed, and when this process ends.
class DockerRegistry {
 public:
  // Returns true if docker-registry is installed.
  static bool IsInstalled();

  // Starts the registry, and returns once it accepts connections.
  // Throws std::runtime_error, with the registry's log, if it does not start.
  explicit DockerRegistry(const DockerRegistryOptions& options = {});
  DockerRegistry(const DockerRegistry&) = delete;
  DockerRegistry& operator=(const DockerRegistry&) = delete;
  ~DockerRegistry();

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // Ends the registry with SIGKILL. May be called by any thread, but not at the same time as Start.
  void Kill() noexcept;
  // Starts a registry that was killed, with its port and storage.
  void Start();
  // Removes the manifests that no tag names, and the blobs that no manifest names.
  // Throws std::runtime_error, with the output, if that fails.
  void CollectGarbage() const;

  RegistryStorage& storage() { return storage_; }
  // Returns the requests that were answered, as "METHOD /PATH STATUS", since the start of the log
  // or, with from, those after the first from requests.
  std::vector<std::string> Requests(std::size_t from = 0) const;

 private:
  void WriteConfig(const DockerRegistryOptions& options) const;
  // Returns once the registry listens; false if it has ended.
  bool AwaitPort(std::uintmax_t log_begin);

  const TempDir dir_;
  RegistryStorage storage_{dir_ / "storage"};
  int port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_DOCKER_REGISTRY_H_
