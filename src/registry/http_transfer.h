// SPDX-License-Identifier: Apache-2.0
//
// One transfer of an HttpClient. Only http_client.cc and http_transfer.cc include this header, so
// that the rest of the library does not need libcurl.

#ifndef MSB_SRC_REGISTRY_HTTP_TRANSFER_H_
#define MSB_SRC_REGISTRY_HTTP_TRANSFER_H_

#include <curl/curl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "src/registry/http_client.h"

namespace msb::registry {

struct FreeCurlList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
// CURL and CURLM may be names of the same type.
struct FreeCurlEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct FreeCurlMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
using CurlEasy = std::unique_ptr<CURL, FreeCurlEasy>;
using CurlMulti = std::unique_ptr<CURLM, FreeCurlMulti>;
using CurlList = std::unique_ptr<curl_slist, FreeCurlList>;

// An HttpTransfer represents a request in progress, and collects the response.
class HttpTransfer {
 public:
  // Adds the number of bytes of bodies to traffic as they are sent and received. options and
  // traffic must outlive the transfer.
  HttpTransfer(HttpRequest request, HttpClient::Done done, const HttpOptions& options,
               std::uint64_t& traffic);
  HttpTransfer(const HttpTransfer&) = delete;
  HttpTransfer& operator=(const HttpTransfer&) = delete;

  CURL* easy() const { return easy_.get(); }
  // Completes the response. code is the result of the transfer.
  // Throws std::bad_alloc if libcurl or a callback ran out of memory.
  void Finish(CURLcode code);
  // Passes the response to done.
  void Deliver() { done_(std::move(response_)); }

 private:
  enum class Stop {
    kNot,
    kTooLong,  // The response is longer than allowed.
    kCut,      // The rest of the body is not needed, because the response is not successful.
    kNoMemory,
  };

  void SetConnection(const HttpOptions& options);
  void SetCertificates(const HttpOptions& options);
  void SetRequest();
  void SetCallbacks();
  void AddHeader(const std::string& header);

  template <typename Value>
  Value Info(CURLINFO info) const;
  bool IsSuccess() const;

  // The functions that return false end the transfer.
  bool StopWith(Stop stop);
  bool TakeHeaderLine(std::string_view line);
  // Refuses a body that is announced to be longer than allowed.
  bool CheckLength();
  bool TakeBody(std::string_view bytes);
  void TakeSent(curl_off_t total);

  // Calls a function that takes data from libcurl, through which no exception may pass.
  static std::size_t Take(std::string_view data, void* transfer,
                          bool (HttpTransfer::*take)(std::string_view)) noexcept;
  // The callbacks of libcurl.
  static std::size_t OnHeader(char* data, std::size_t one, std::size_t size, void* self) noexcept;
  static std::size_t OnBody(char* data, std::size_t one, std::size_t size, void* self) noexcept;
  static int OnProgress(void* self, curl_off_t to_receive, curl_off_t received, curl_off_t to_send,
                        curl_off_t sent) noexcept;

  const HttpRequest request_;
  const HttpClient::Done done_;
  std::uint64_t& traffic_;
  HttpResponse response_;
  Stop stop_ = Stop::kNot;
  std::size_t header_size_ = 0;
  bool header_complete_ = false;
  std::uint64_t sent_ = 0;
  std::array<char, CURL_ERROR_SIZE> error_{};
  CurlList headers_;
  CurlEasy easy_;  // Released first, because it uses the others.
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_HTTP_TRANSFER_H_
