// SPDX-License-Identifier: Apache-2.0
//
// Finds the credentials for a registry: those of the options, or those that 'docker login' has
// stored in config.json or in a credential helper.

#ifndef MSB_SRC_REGISTRY_CREDENTIALS_H_
#define MSB_SRC_REGISTRY_CREDENTIALS_H_

#include <string>

#include "msb/context.h"
#include "msb/registry.h"

namespace msb::registry {

// The credentials for one registry. They must never become part of a message.
struct Credentials {
  std::string username = {};
  std::string password = {};
  // A refresh token, with which a token server grants access tokens. If it is set, the username and
  // the password are not used.
  std::string identity_token = {};
  bool from_options = false;  // The caller has named them for this call.

  // Returns true if the registry is used without authentication.
  bool IsAnonymous() const { return username.empty() && identity_token.empty(); }
};

// Returns the credentials for a registry, which is HOST or HOST:PORT. Runs a credential helper if
// config.json names one; it is given two minutes.
// Throws kInvalidArgument if only one of the username and the password is set in options, or if
// they have characters that HTTP does not allow.
// Throws kInvalidConfig if config.json is malformed, or names a helper that is not on the PATH.
// Throws kIO if config.json cannot be read, or if the helper fails.
// Throws kCancelled if ctx ends.
Credentials FindCredentials(const Context& ctx, const std::string& registry,
                            const RegistryOptions& options);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_CREDENTIALS_H_
