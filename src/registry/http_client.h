// SPDX-License-Identifier: Apache-2.0
//
// Transfers HTTP messages, several at the same time, in the thread of the caller. Knows nothing
// about registries: its callers handle redirects, authentication and retries.
//
// Servers may be hostile: the size of a response in memory is limited, and only the protocols HTTP
// and HTTPS are used.

#ifndef MSB_SRC_REGISTRY_HTTP_CLIENT_H_
#define MSB_SRC_REGISTRY_HTTP_CLIENT_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/registry/url.h"

namespace msb::registry {

enum class HttpMethod { kGet, kHead, kPost, kPut };

// Returns "GET", "HEAD", "POST" or "PUT".
std::string_view NameOf(HttpMethod method);

struct HttpRequest {
  HttpMethod method = HttpMethod::kGet;
  Url url = {};
  std::vector<std::string> headers = {};              // "Name: value", without control characters.
  std::shared_ptr<const std::string> body = nullptr;  // Null: none. Only for POST and PUT.
  // The longest body of a successful response, in bytes.
  std::size_t limit = 0;
  // Trusts the certificates of the system besides HttpOptions::ca_certificates.
  bool system_certificates = false;
};

enum class HttpFailure {
  kNone,        // There is a response, with any status.
  kConnection,  // The connection could not be made, failed, or was too slow.
  kTrust,       // The certificate of the server is not trusted.
  kNotTls,      // The server does not speak TLS.
  kTooLong,     // The header, or the body of a successful response, is longer than allowed.
};

// The longest header of a response, in bytes, including those of informational (1xx) responses.
inline constexpr std::size_t kMaxHttpHeader = 64 << 10;
// How much of the body is kept if a response is not successful.
inline constexpr std::size_t kMaxHttpErrorBody = 64 << 10;

struct HttpResponse {
  HttpFailure failure = HttpFailure::kNone;
  std::string reason = {};  // The reason of a failure, for messages.
  // Whether it failed in the TLS handshake: some servers that do not speak TLS just close the
  // connection.
  bool in_handshake = false;
  Url url = {};  // The URL that was requested: the last one if there were redirects.
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers = {};  // The names are in lower case.
  std::string body = {};
  // Whether the response announces where its body ends. Otherwise the body ends when the connection
  // is closed, and may be incomplete.
  bool delimited = true;

  bool IsSuccess() const { return failure == HttpFailure::kNone && status / 100 == 2; }
  // Returns the value of the first header with this name, which is in lower case, or "".
  std::string_view Header(std::string_view name) const;
  // Returns the values of all headers with this name.
  std::vector<std::string_view> Headers(std::string_view name) const;
};

struct HttpOptions {
  // Certificates in PEM form that are trusted instead of those of the system. Empty: none.
  std::string ca_certificates = {};
  unsigned connections = 8;               // The number of idle connections to keep.
  std::chrono::seconds connect_time{30};  // The longest time to make a connection.
  // A transfer fails if it is slower than 1 KiB/s for this long.
  std::chrono::seconds stall_time{60};
};

// An HttpClient makes transfers. All functions but Wake must be called by one thread.
class HttpClient {
 public:
  using Done = std::function<void(HttpResponse response)>;

  // Throws kUnsupportedOperation if the library was built without libcurl.
  explicit HttpClient(HttpOptions options);
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  // Ends the transfers that have begun, without calling their done functions.
  ~HttpClient();

  // Begins a transfer. Poll calls done at its end.
  void Start(HttpRequest request, Done done);
  // Runs the transfers. Waits for an event for at most the given time, and calls the done functions
  // of the transfers that have ended. If one of them throws, passes the exception on; the next call
  // of Poll calls those that remain.
  void Poll(std::chrono::milliseconds longest);
  // Makes Poll return soon. May be called by any thread.
  void Wake() noexcept;
  // Returns the number of bytes of bodies that were sent or received since the last call.
  std::uint64_t TakeTraffic();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_HTTP_CLIENT_H_
