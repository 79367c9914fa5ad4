// SPDX-License-Identifier: Apache-2.0
//
// The parts of http_client.h that do not need libcurl.

#include "src/registry/http_client.h"

namespace msb::registry {

std::string_view NameOf(HttpMethod method) {
  switch (method) {
    case HttpMethod::kGet:
      return "GET";
    case HttpMethod::kHead:
      return "HEAD";
    case HttpMethod::kPost:
      return "POST";
    case HttpMethod::kPut:
      break;
  }
  return "PUT";
}

std::string_view HttpResponse::Header(std::string_view name) const {
  for (const auto& [header, value] : headers) {
    if (header == name) return value;
  }
  return {};
}

std::vector<std::string_view> HttpResponse::Headers(std::string_view name) const {
  std::vector<std::string_view> values;
  for (const auto& [header, value] : headers) {
    if (header == name) values.push_back(value);
  }
  return values;
}

}  // namespace msb::registry
