// SPDX-License-Identifier: Apache-2.0
//
// Gets documents from a registry, several at the same time, and uses them in a given order.

#ifndef MSB_SRC_REGISTRY_IN_ORDER_H_
#define MSB_SRC_REGISTRY_IN_ORDER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "src/registry/registry_client.h"

namespace msb::registry {

// The documents to get. Document is what the client delivers.
template <typename Document>
struct DocumentList {
  std::size_t count = 0;
  // Returns the maximum size in bytes of the document with this index.
  std::function<std::uint64_t(std::size_t index)> size;
  // Begins to get the document, and calls done when it is complete.
  std::function<void(std::size_t index, std::function<void(Document document)> done)> begin;
};

// Gets the documents and calls use with each of them, in their order. Documents that arrive early
// wait in memory: at most 32 of them, and 32 MiB unless a single one is larger.
// Throws the first error of the client or of use; then the client must not be used again.
template <typename Document>
void GetInOrder(RegistryClient& client, const DocumentList<Document>& list,
                const std::function<void(std::size_t index, Document document)>& use) {
  constexpr std::size_t kMaxWaiting = 32;
  constexpr std::uint64_t kMaxWaitingBytes = 32 << 20;
  struct Request {
    std::uint64_t size;
    std::shared_ptr<std::optional<Document>> document;
  };
  std::deque<Request> requests;
  std::uint64_t bytes = 0;
  std::size_t next = 0;
  for (std::size_t index = 0; index < list.count; ++index) {
    for (; next < list.count && requests.size() < kMaxWaiting; ++next) {
      const std::uint64_t size = list.size(next);
      const std::uint64_t room = kMaxWaitingBytes - std::min(bytes, kMaxWaitingBytes);
      if (!requests.empty() && size > room) break;
      const auto document = std::make_shared<std::optional<Document>>();
      list.begin(next, [document](Document arrived) { *document = std::move(arrived); });
      requests.push_back({size, document});
      bytes += size;
    }
    const Request request = std::move(requests.front());
    requests.pop_front();
    client.Run([&] { return request.document->has_value(); });
    bytes -= request.size;
    use(index, *std::move(*request.document));
  }
}

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_IN_ORDER_H_
