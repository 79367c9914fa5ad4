// SPDX-License-Identifier: Apache-2.0
//
// Asks a docker credential helper, a program that keeps credentials, for those of a registry.

#ifndef MSB_SRC_REGISTRY_CREDENTIAL_HELPER_H_
#define MSB_SRC_REGISTRY_CREDENTIAL_HELPER_H_

#include <chrono>
#include <optional>
#include <string>

#include "msb/context.h"
#include "src/registry/credentials.h"

namespace msb::registry {

// How long a helper may take. It may have to ask the user to unlock a key ring.
inline constexpr std::chrono::nanoseconds kCredentialHelperTime = std::chrono::minutes(2);

// A CredentialHelper represents the program docker-credential-NAME on the PATH.
struct CredentialHelper {
  std::string name;
  std::string config;  // The path of the file that names the helper, for messages.
  std::chrono::nanoseconds time = kCredentialHelperTime;  // How long it may take.

  // Returns the credentials that the helper has for the registry, or nullopt if it has none.
  // Throws kInvalidConfig if the name is not a plain file name, or if there is no such program.
  // Throws kIO if the helper fails, takes too long, or breaks the protocol.
  // Throws kCancelled if ctx ends; the helper is killed.
  std::optional<Credentials> Get(const Context& ctx, const std::string& registry) const;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_CREDENTIAL_HELPER_H_
