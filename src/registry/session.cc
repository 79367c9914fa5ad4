// SPDX-License-Identifier: Apache-2.0

#include "src/registry/session.h"

#include <fcntl.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/registry/credentials.h"
#include "src/registry/exchange.h"
#include "src/registry/reference.h"
#include "src/registry/retry.h"

namespace msb::registry {
namespace {

constexpr std::chrono::milliseconds kLongestStep{50};
constexpr std::size_t kMaxCertificates = 16 << 20;
constexpr unsigned kMaxConnections = 64;
constexpr int kMaxRetries = 100;

[[noreturn]] void RefuseOptions(std::string_view problem) {
  base::Throw(ErrorKind::kInvalidArgument, "RegistryOptions are invalid: {}; correct them",
              problem);
}

// Returns the URL of the registry, without a path.
Url BaseUrl(const std::string& registry, const RegistryOptions& options) {
  if (!IsRegistry(registry)) {
    base::Throw(ErrorKind::kInvalidArgument,
                "registry '{}' is invalid: it must be HOST or HOST:PORT, in lower case",
                base::Quoted(registry));
  }
  if (options.connections < 1 || options.connections > kMaxConnections) {
    RefuseOptions(fmt::format("connections is {}, and must be from 1 to {}", options.connections,
                              kMaxConnections));
  }
  if (options.retries < 0 || options.retries > kMaxRetries) {
    RefuseOptions(
        fmt::format("retries is {}, and must be from 0 to {}", options.retries, kMaxRetries));
  }
  if (options.plain_http && !options.ca_file.empty()) {
    RefuseOptions("plain_http and ca_file contradict each other");
  }
  const bool plain = options.plain_http || (options.ca_file.empty() && IsLoopback(registry));
  // The URL is valid because IsRegistry is stricter.
  return Url::Parse(fmt::format("{}://{}", plain ? "http" : "https", registry)).value();
}

std::string ReadCertificates(const std::string& path) {
  if (path.empty()) return {};
  const base::UniqueFd fd = base::OpenAt(AT_FDCWD, path.c_str(), O_RDONLY | O_NONBLOCK);
  if (!fd) base::ThrowErrno("open ca_file", path);
  auto content = base::ReadAll(fd.get(), kMaxCertificates);
  if (!content || content->find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
    base::Throw(
        ErrorKind::kIO,
        "ca_file {} has no certificates: it must be a PEM file of at most {} bytes; set it to "
        "the certificate of the authority that signed the registry's certificate",
        path, kMaxCertificates);
  }
  return *std::move(content);
}

// Returns a number that differs between processes and clients.
std::uint32_t Seed() {
  return static_cast<std::uint32_t>(std::stoul(base::RandomSuffix().substr(0, 8), nullptr, 16));
}

}  // namespace

Session::Session(const Context& ctx, std::string registry, const RegistryOptions& options)
    : ctx_(ctx),
      registry_(std::move(registry)),
      options_(options),
      base_(BaseUrl(registry_, options_)),
      random_(Seed()),
      throttle_(options_.connections, random_),
      http_({.ca_certificates = ReadCertificates(options_.ca_file),
             .connections = options_.connections}),
      authenticator_(base_, CredentialsFinder(),
                     [this](RegistryRequest request, Answered answered) {
                       Send(std::move(request), std::move(answered));
                     }) {}

std::function<Credentials()> Session::CredentialsFinder() const {
  const auto find = [this] { return FindCredentials(ctx_, registry_, options_); };
  if (options_.username.empty() && options_.password.empty()) return find;
  return [credentials = find()] { return credentials; };
}

Url Session::UrlOf(const std::string& repository, const std::string& path) const {
  Url url = base_;
  url.path = fmt::format("/v2/{}/{}", repository, path);
  return url;
}

void Session::Send(RegistryRequest request, Answered answered) {
  std::make_shared<Exchange>(*this, std::move(request), std::move(answered))->Begin();
}

void Session::Transfer(HttpRequest request, HttpClient::Done done) {
  // ca_file is for the registry. Token servers and storage elsewhere may have public certificates.
  request.system_certificates = !request.url.SameOrigin(base_);
  ++in_flight_;
  http_.Start(std::move(request), [this, done = std::move(done)](HttpResponse response) {
    --in_flight_;
    done(std::move(response));
  });
}

void Session::Admit(std::function<void()> send) {
  admitted_.push_back(std::move(send));
  SendAdmitted();
}

void Session::SendAdmitted() {
  while (!admitted_.empty() && throttle_.Allows(in_flight_, std::chrono::steady_clock::now())) {
    const std::function<void()> send = std::move(admitted_.front());
    admitted_.pop_front();
    throttle_.OnSend();
    send();
  }
}

void Session::OnAnswer() { throttle_.OnAnswer(); }

std::string Session::Explain(const HttpResponse& response) const {
  return registry::Explain(response, authenticator_.secrets());
}

void Session::ThrowUnavailable(const Subject& subject, const HttpResponse& response,
                               std::string_view next_step) const {
  base::Throw(ErrorKind::kRegistryUnavailable, "{} failed: {}; {}", subject.ToString(),
              Explain(response), next_step);
}

std::optional<std::chrono::milliseconds> Session::RequestedDelay(
    const Subject& subject, const HttpResponse& response) const {
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  const auto delay = ParseRetryAfter(response.Header("retry-after"), now);
  if (!delay) return std::nullopt;
  const auto left = ctx_.TimeLeft();
  if (*delay > kLongestRetryAfter || (left && *delay > *left)) {
    ThrowUnavailable(
        subject, response,
        fmt::format("the registry asked for a delay of {0} s, which exceeds {1}; try again after "
                    "{0} s",
                    delay->count(),
                    *delay > kLongestRetryAfter
                        ? fmt::format("the limit of {} s", kLongestRetryAfter.count())
                        : std::string("the time left until the deadline")));
  }
  return *delay;
}

void Session::Repeat(int& repetitions, const Subject& subject, const HttpResponse& response,
                     std::function<void()> again) {
  const auto requested = RequestedDelay(subject, response);
  const auto now = std::chrono::steady_clock::now();
  const bool throttled = IsThrottled(response);
  if (throttled) throttle_.OnRefusal(requested, now);
  const int failures = throttled ? throttle_.vain_pauses() : repetitions + 1;
  if (failures > options_.retries) {
    ThrowUnavailable(
        subject, response,
        fmt::format(
            "this was attempt {} of {}; check that the registry works, or try again later{}",
            failures, options_.retries + 1,
            response.in_handshake ? "; if it does not use HTTPS, set RegistryOptions::plain_http "
                                    "(msb-snapshot: --plain-http)"
                                  : ""));
  }
  if (throttled) {
    timers_.emplace(throttle_.resume(), std::move(again));
    return;
  }
  timers_.emplace(now + (requested ? *requested : BackoffDelay(repetitions, random_)),
                  std::move(again));
  ++repetitions;
}

void Session::RunTimers() {
  while (!timers_.empty() && timers_.begin()->first <= std::chrono::steady_clock::now()) {
    const std::function<void()> run = std::move(timers_.extract(timers_.begin()).mapped());
    run();
  }
}

void Session::Step() {
  RunTimers();
  SendAdmitted();
  std::chrono::nanoseconds wait = kLongestStep;
  if (!timers_.empty()) {
    wait = std::min(wait, timers_.begin()->first - std::chrono::steady_clock::now());
  }
  if (const auto left = ctx_.TimeLeft()) wait = std::min(wait, *left);
  wait = std::max(wait, std::chrono::nanoseconds(0));
  http_.Poll(std::chrono::ceil<std::chrono::milliseconds>(wait));
}

}  // namespace msb::registry
