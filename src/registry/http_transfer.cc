// SPDX-License-Identifier: Apache-2.0

#include "src/registry/http_transfer.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <new>
#include <system_error>
#include <utility>

#include "msb/version.h"
#include "src/base/descriptor.h"
#include "src/base/fork.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/registry/reference.h"

namespace msb::registry {
namespace {

constexpr long kSlowestBytesPerSecond = 1024;
// Larger buffers need fewer system calls; those of libcurl have 16 and 64 KiB.
constexpr long kBufferSize = 256 << 10;

template <typename Value>
void Set(CURL* easy, CURLoption option, Value value) {
  const CURLcode code = curl_easy_setopt(easy, option, value);
  if (code == CURLE_OUT_OF_MEMORY) throw std::bad_alloc();
  if (code == CURLE_OK) return;
  base::Throw(ErrorKind::kUnsupportedOperation,
              "this libcurl ({}) lacks an option that registries need ({}: {}); install libcurl "
              "with OpenSSL",
              curl_version(), static_cast<int>(option), curl_easy_strerror(code));
}

CurlEasy MakeEasy() {
  const base::ForkSafeSection section;  // libcurl locks its global state.
  CurlEasy easy(curl_easy_init());
  if (!easy) throw std::bad_alloc();
  return easy;
}

curl_socket_t OnOpenSocket(void*, curlsocktype, curl_sockaddr* address) noexcept {
  try {
    return base::OpenSocket(address->family, address->socktype, address->protocol).Release();
  } catch (...) {
    return CURL_SOCKET_BAD;
  }
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = std::min(text.find_first_not_of(kSpace), text.size());
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - std::min(begin, text.size()));
}

HttpFailure FailureOf(CURLcode code, std::string_view reason) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return HttpFailure::kTrust;
    case CURLE_SSL_CONNECT_ERROR:
      // OpenSSL reports this if the first bytes of the server are not a TLS record.
      return reason.find("wrong version number") == std::string_view::npos
                 ? HttpFailure::kConnection
                 : HttpFailure::kNotTls;
    default:
      return HttpFailure::kConnection;
  }
}

}  // namespace

HttpTransfer::HttpTransfer(HttpRequest request, HttpClient::Done done, const HttpOptions& options,
                           std::uint64_t& traffic)
    : request_(std::move(request)), done_(std::move(done)), traffic_(traffic), easy_(MakeEasy()) {
  SetConnection(options);
  SetCertificates(options);
  SetRequest();
  SetCallbacks();
}

template <typename Value>
Value HttpTransfer::Info(CURLINFO info) const {
  Value value{};
  curl_easy_getinfo(easy_.get(), info, &value);
  return value;
}

bool HttpTransfer::IsSuccess() const { return Info<long>(CURLINFO_RESPONSE_CODE) / 100 == 2; }

void HttpTransfer::Finish(CURLcode code) {
  if (stop_ == Stop::kNoMemory || code == CURLE_OUT_OF_MEMORY) throw std::bad_alloc();
  TakeSent(Info<curl_off_t>(CURLINFO_SIZE_UPLOAD_T));
  response_.url = request_.url;
  response_.status = static_cast<int>(Info<long>(CURLINFO_RESPONSE_CODE));
  response_.delimited = Info<long>(CURLINFO_HTTP_VERSION) > CURL_HTTP_VERSION_1_1 ||
                        !response_.Header("content-length").empty() ||
                        !response_.Header("transfer-encoding").empty();
  if (stop_ == Stop::kTooLong) {
    response_.failure = HttpFailure::kTooLong;
  } else if (code != CURLE_OK && stop_ != Stop::kCut) {
    response_.reason = error_.front() != '\0' ? error_.data() : curl_easy_strerror(code);
    response_.failure = FailureOf(code, response_.reason);
    response_.in_handshake = code == CURLE_SSL_CONNECT_ERROR;
  }
}

void HttpTransfer::SetConnection(const HttpOptions& options) {
  CURL* easy = easy_.get();
  Set(easy, CURLOPT_URL, request_.url.ToString().c_str());
  Set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  Set(easy, CURLOPT_FOLLOWLOCATION, 0L);
  Set(easy, CURLOPT_NOSIGNAL, 1L);
  Set(easy, CURLOPT_QUICK_EXIT, 1L);  // A cancellation does not wait for the DNS.
  Set(easy, CURLOPT_CONNECTTIMEOUT_MS,
      static_cast<long>(std::chrono::milliseconds(options.connect_time).count()));
  Set(easy, CURLOPT_LOW_SPEED_LIMIT, kSlowestBytesPerSecond);
  Set(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options.stall_time.count()));
  Set(easy, CURLOPT_BUFFERSIZE, kBufferSize);
  Set(easy, CURLOPT_UPLOAD_BUFFERSIZE, kBufferSize);
  // Waits until it is known whether a new connection uses HTTP/2 and can be shared. Without TLS,
  // which negotiates the protocol, this would wait for the first response.
  if (request_.url.scheme == "https") Set(easy, CURLOPT_PIPEWAIT, 1L);
  Set(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  if (IsLoopback(request_.url.host)) Set(easy, CURLOPT_NOPROXY, "*");
  Set(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
}

void HttpTransfer::SetCertificates(const HttpOptions& options) {
  CURL* easy = easy_.get();
  if (options.ca_certificates.empty()) return;
  // libcurl does not change what it is given here. The options live longer than the transfer.
  curl_blob certificates{.data = const_cast<char*>(options.ca_certificates.data()),
                         .len = options.ca_certificates.size(),
                         .flags = CURL_BLOB_NOCOPY};
  Set(easy, CURLOPT_CAINFO_BLOB, &certificates);
  if (!request_.system_certificates) Set<const char*>(easy, CURLOPT_CAPATH, nullptr);
}

void HttpTransfer::SetRequest() {
  CURL* easy = easy_.get();
  Set(easy, CURLOPT_USERAGENT, "msb/" MSB_VERSION_STRING);
  AddHeader("Expect:");  // Removes it: a server that ignores it would delay each upload.
  if (!request_.body) AddHeader("Content-Type:");
  for (const std::string& header : request_.headers) AddHeader(header);
  Set(easy, CURLOPT_HTTPHEADER, headers_.get());
  switch (request_.method) {
    case HttpMethod::kGet:
      return Set(easy, CURLOPT_HTTPGET, 1L);
    case HttpMethod::kHead:
      return Set(easy, CURLOPT_NOBODY, 1L);
    case HttpMethod::kPut:
    case HttpMethod::kPost:
      break;
  }
  Set(easy, CURLOPT_POST, 1L);
  // This does not copy the body.
  Set(easy, CURLOPT_POSTFIELDS, request_.body ? request_.body->data() : "");
  Set(easy, CURLOPT_POSTFIELDSIZE_LARGE,
      static_cast<curl_off_t>(request_.body ? request_.body->size() : 0));
  if (request_.method == HttpMethod::kPut) Set(easy, CURLOPT_CUSTOMREQUEST, "PUT");
}

void HttpTransfer::SetCallbacks() {
  CURL* easy = easy_.get();
  Set(easy, CURLOPT_PRIVATE, static_cast<void*>(this));
  Set(easy, CURLOPT_ERRORBUFFER, error_.data());
  Set(easy, CURLOPT_OPENSOCKETFUNCTION, &OnOpenSocket);
  Set(easy, CURLOPT_HEADERFUNCTION, &OnHeader);
  Set(easy, CURLOPT_HEADERDATA, static_cast<void*>(this));
  Set(easy, CURLOPT_WRITEFUNCTION, &OnBody);
  Set(easy, CURLOPT_WRITEDATA, static_cast<void*>(this));
  Set(easy, CURLOPT_XFERINFOFUNCTION, &OnProgress);
  Set(easy, CURLOPT_XFERINFODATA, static_cast<void*>(this));
  Set(easy, CURLOPT_NOPROGRESS, 0L);
}

void HttpTransfer::AddHeader(const std::string& header) {
  // A line break would begin another header.
  if (base::HasControlCharacter(header)) {
    base::Throw(ErrorKind::kInternal, "a header of a request has a control character");
  }
  curl_slist* longer = curl_slist_append(headers_.get(), header.c_str());
  if (longer == nullptr) throw std::bad_alloc();
  static_cast<void>(headers_.release());  // It is part of the longer list.
  headers_.reset(longer);
}

bool HttpTransfer::StopWith(Stop stop) {
  stop_ = stop;
  return false;
}

bool HttpTransfer::TakeHeaderLine(std::string_view line) {
  header_size_ += line.size();
  if (header_size_ > kMaxHttpHeader) return StopWith(Stop::kTooLong);
  if (header_complete_ && !line.starts_with("HTTP/")) return true;  // A trailer of the body.
  if (line.starts_with("HTTP/")) {
    response_.headers.clear();  // Those of an informational response.
    header_complete_ = false;
    return true;
  }
  const std::string_view text = Trim(line);
  header_complete_ = text.empty();
  if (header_complete_) return CheckLength();
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return true;
  response_.headers.emplace_back(base::LowerCase(text.substr(0, colon)),
                                 Trim(text.substr(colon + 1)));
  return true;
}

bool HttpTransfer::CheckLength() {
  const std::string_view text = response_.Header("content-length");
  std::uint64_t length = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  const bool too_long = error == std::errc::result_out_of_range || length > request_.limit;
  if (request_.method == HttpMethod::kHead || !IsSuccess() || text.empty()) return true;
  if (too_long) return StopWith(Stop::kTooLong);
  response_.body.reserve(static_cast<std::size_t>(length));
  return true;
}

bool HttpTransfer::TakeBody(std::string_view bytes) {
  traffic_ += bytes.size();
  const bool success = IsSuccess();
  const std::size_t limit = success ? request_.limit : kMaxHttpErrorBody;
  const std::size_t room = limit - std::min(limit, response_.body.size());
  response_.body += bytes.substr(0, room);
  if (bytes.size() <= room) return true;
  return StopWith(success ? Stop::kTooLong : Stop::kCut);
}

void HttpTransfer::TakeSent(curl_off_t total) {
  const auto sent = static_cast<std::uint64_t>(std::max<curl_off_t>(total, 0));
  // The total begins again at 0 if libcurl repeats the request on another connection.
  if (sent > sent_) traffic_ += sent - sent_;
  sent_ = sent;
}

std::size_t HttpTransfer::Take(std::string_view data, void* transfer,
                               bool (HttpTransfer::*take)(std::string_view)) noexcept {
  auto& self = *static_cast<HttpTransfer*>(transfer);
  // libcurl ends the transfer if the result differs from the size.
  try {
    return (self.*take)(data) ? data.size() : data.size() + 1;
  } catch (...) {
    self.stop_ = Stop::kNoMemory;
    return data.size() + 1;
  }
}

std::size_t HttpTransfer::OnHeader(char* data, std::size_t one, std::size_t size,
                                   void* self) noexcept {
  return Take({data, one * size}, self, &HttpTransfer::TakeHeaderLine);
}

std::size_t HttpTransfer::OnBody(char* data, std::size_t one, std::size_t size,
                                 void* self) noexcept {
  return Take({data, one * size}, self, &HttpTransfer::TakeBody);
}

int HttpTransfer::OnProgress(void* self, curl_off_t, curl_off_t, curl_off_t,
                             curl_off_t sent) noexcept {
  static_cast<HttpTransfer*>(self)->TakeSent(sent);
  return 0;
}

}  // namespace msb::registry
