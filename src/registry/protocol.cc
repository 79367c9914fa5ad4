// SPDX-License-Identifier: Apache-2.0

#include "src/registry/protocol.h"

#include "src/base/throw.h"
#include "src/registry/session.h"

namespace msb::registry {

std::string PullScope(std::string_view repository) {
  return fmt::format("repository:{}:pull", repository);
}

std::string PushScope(std::string_view repository) {
  return fmt::format("repository:{}:pull,push", repository);
}

RegistryRequest NewRequest(const Session& session, HttpMethod method, const std::string& repository,
                           std::string_view what) {
  return {.subject = {.registry = session.registry(),
                      .repository = repository,
                      .request = fmt::format("{} of {}", NameOf(method), what)},
          .method = method,
          .limit = kMaxAnswer,
          .scope = PullScope(repository)};
}

void ThrowUnexpected(const Session& session, const Subject& subject, const HttpResponse& response) {
  if (response.status == 404) {
    base::Throw(ErrorKind::kSnapshotNotFound,
                "{} failed: {}; check the name of the repository, or create it in the registry",
                subject.ToString(), session.Explain(response));
  }
  session.ThrowUnavailable(subject, response,
                           "check that the registry supports the OCI distribution protocol and "
                           "allows this request");
}

}  // namespace msb::registry
