// SPDX-License-Identifier: Apache-2.0
//
// The HttpClient of a library that was built without libcurl (MSB_WITH_REGISTRY=OFF).

#include "src/base/throw.h"
#include "src/registry/http_client.h"

namespace msb::registry {

class HttpClient::Impl {};

// The signatures are those of libcurl's HttpClient.
// NOLINTBEGIN(performance-unnecessary-value-param)
HttpClient::HttpClient(HttpOptions) {
  base::Throw(ErrorKind::kUnsupportedOperation,
              "this build of the library cannot use registries, because it was built without "
              "libcurl; install libcurl4-openssl-dev and build it with -DMSB_WITH_REGISTRY=ON");
}

HttpClient::~HttpClient() = default;

void HttpClient::Start(HttpRequest, Done) {}
// NOLINTEND(performance-unnecessary-value-param)
void HttpClient::Poll(std::chrono::milliseconds) {}
void HttpClient::Wake() noexcept {}
std::uint64_t HttpClient::TakeTraffic() { return 0; }

}  // namespace msb::registry
