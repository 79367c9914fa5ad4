// SPDX-License-Identifier: Apache-2.0
//
// Describes one request to a registry at the level of the operations: redirects, authentication and
// repetitions are handled for it.

#ifndef MSB_SRC_REGISTRY_REGISTRY_REQUEST_H_
#define MSB_SRC_REGISTRY_REGISTRY_REQUEST_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/registry/failure.h"
#include "src/registry/http_client.h"
#include "src/registry/url.h"

namespace msb::registry {

struct RegistryRequest {
  Subject subject;
  HttpMethod method = HttpMethod::kGet;
  Url url = {};
  std::vector<std::string> headers = {};
  std::shared_ptr<const std::string> body = nullptr;
  std::size_t limit = 0;  // The longest body of a successful response, in bytes.
  // The access that the request needs, such as "repository:team/app:pull". Several scopes are
  // separated by spaces.
  std::string scope = {};
  // The value of the Authorization header. Default: determined by the registry's challenge.
  std::optional<std::string> authorization = {};
  // The registry has answered the same request before, so another answer is no progress.
  bool is_repeated = false;
  // Passes a transient failure to done instead of making the same request again.
  bool reports_failures = false;
  // Passes the statuses 401 and 403 to done instead of throwing kRegistryUnauthorized.
  bool reports_refusals = false;
  // Passes only the status 403 of the registry to done. Rejected credentials still throw
  // kRegistryUnauthorized, so that they are not tried again.
  bool reports_forbidden = false;
};

// Receives the response to a request. It is called by the thread that waits, and may throw.
using Answered = std::function<void(HttpResponse response)>;
using SendFunction = std::function<void(RegistryRequest request, Answered answered)>;

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_REGISTRY_REQUEST_H_
