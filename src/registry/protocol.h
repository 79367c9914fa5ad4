// SPDX-License-Identifier: Apache-2.0
//
// Helpers that several operations of the OCI distribution protocol share.

#ifndef MSB_SRC_REGISTRY_PROTOCOL_H_
#define MSB_SRC_REGISTRY_PROTOCOL_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "src/registry/registry_request.h"

namespace msb::registry {

class Session;

// The longest body of a response that is not a document or blob.
inline constexpr std::size_t kMaxAnswer = 256 << 10;

std::string PullScope(std::string_view repository);
std::string PushScope(std::string_view repository);

// Returns a request with read access to a repository, without a URL. what names the object of the
// request in messages.
RegistryRequest NewRequest(const Session& session, HttpMethod method, const std::string& repository,
                           std::string_view what);

// Throws an error because the response has an unexpected status: kSnapshotNotFound for 404, and
// kRegistryUnavailable otherwise.
[[noreturn]] void ThrowUnexpected(const Session& session, const Subject& subject,
                                  const HttpResponse& response);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_PROTOCOL_H_
