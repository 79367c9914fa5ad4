// SPDX-License-Identifier: Apache-2.0

#include "src/registry/http_client.h"

#include <curl/curl.h>

#include <deque>
#include <map>
#include <new>
#include <utility>

#include "src/base/descriptor.h"
#include "src/base/fork.h"
#include "src/base/throw.h"
#include "src/registry/http_transfer.h"

namespace msb::registry {
namespace {

// Represents the global state of libcurl, which is never released: the program may use it, too.
struct CurlLibrary {
  CurlLibrary() {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
      base::Throw(ErrorKind::kIO, "libcurl cannot be initialized; check its installation");
    }
  }
  CurlLibrary(const CurlLibrary&) = delete;
  CurlLibrary& operator=(const CurlLibrary&) = delete;
  ~CurlLibrary() { curl_global_cleanup(); }  // If another thread was faster (base::Lazy).
};

void Check(std::string_view function, CURLMcode code) {
  if (code == CURLM_OUT_OF_MEMORY) throw std::bad_alloc();
  if (code == CURLM_OK) return;
  base::Throw(ErrorKind::kInternal, "{} of libcurl failed with code {}: {}", function,
              static_cast<int>(code), curl_multi_strerror(code));
}

CurlMulti MakeMulti() {
  static constinit base::Lazy<CurlLibrary> library;
  const base::ForkSafeSection section;
  library.Get();
  CurlMulti multi(curl_multi_init());
  if (!multi) throw std::bad_alloc();
  return multi;
}

}  // namespace

class HttpClient::Impl {
 public:
  explicit Impl(HttpOptions options) : options_(std::move(options)) {
    Check("curl_multi_setopt", curl_multi_setopt(multi_.get(), CURLMOPT_MAXCONNECTS,
                                                 2 * static_cast<long>(options_.connections)));
    Check("curl_multi_setopt", curl_multi_setopt(multi_.get(), CURLMOPT_PIPELINING,
                                                 static_cast<long>(CURLPIPE_MULTIPLEX)));
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    for (const auto& [easy, transfer] : transfers_) curl_multi_remove_handle(multi_.get(), easy);
  }

  void Start(HttpRequest request, Done done) {
    auto transfer =
        std::make_unique<HttpTransfer>(std::move(request), std::move(done), options_, traffic_);
    CURL* easy = transfer->easy();
    transfers_.emplace(easy, std::move(transfer));
    const CURLMcode code = curl_multi_add_handle(multi_.get(), easy);
    if (code != CURLM_OK) transfers_.erase(easy);
    Check("curl_multi_add_handle", code);
  }

  void Poll(std::chrono::milliseconds longest) {
    Perform();
    if (finished_.empty()) {
      Check("curl_multi_poll",
            curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(longest.count()), nullptr));
      Perform();
    }
    while (!finished_.empty()) {
      const std::unique_ptr<HttpTransfer> transfer = std::move(finished_.front());
      finished_.pop_front();
      transfer->Deliver();
    }
  }

  void Wake() noexcept { curl_multi_wakeup(multi_.get()); }

  std::uint64_t TakeTraffic() { return std::exchange(traffic_, 0); }

 private:
  // Lets libcurl read and write what is possible without waiting, and collects the transfers that
  // have ended.
  void Perform() {
    int running = 0;
    Check("curl_multi_perform", curl_multi_perform(multi_.get(), &running));
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      const auto found = transfers_.find(message->easy_handle);
      // After this the message must not be used.
      curl_multi_remove_handle(multi_.get(), message->easy_handle);
      if (found == transfers_.end()) continue;
      std::unique_ptr<HttpTransfer> transfer = std::move(found->second);
      transfers_.erase(found);
      transfer->Finish(code);
      finished_.push_back(std::move(transfer));
    }
  }

  // libcurl opens descriptors here and, to look names up, in threads of its own.
  const base::StandardStreamGuard guard_;
  const HttpOptions options_;
  std::uint64_t traffic_ = 0;
  CurlMulti multi_ = MakeMulti();
  std::map<CURL*, std::unique_ptr<HttpTransfer>> transfers_;
  std::deque<std::unique_ptr<HttpTransfer>> finished_;
};

HttpClient::HttpClient(HttpOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpClient::~HttpClient() = default;

void HttpClient::Start(HttpRequest request, Done done) {
  impl_->Start(std::move(request), std::move(done));
}
void HttpClient::Poll(std::chrono::milliseconds longest) { impl_->Poll(longest); }
void HttpClient::Wake() noexcept { impl_->Wake(); }
std::uint64_t HttpClient::TakeTraffic() { return impl_->TakeTraffic(); }

}  // namespace msb::registry
