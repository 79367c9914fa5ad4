// SPDX-License-Identifier: Apache-2.0
//
// A Session holds the state that all requests to one registry share: the connections, the
// authentication, the options, and the requests that wait to be repeated.

#ifndef MSB_SRC_REGISTRY_SESSION_H_
#define MSB_SRC_REGISTRY_SESSION_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "msb/registry.h"
#include "src/registry/authenticator.h"
#include "src/registry/http_client.h"
#include "src/registry/registry_request.h"
#include "src/registry/throttle.h"
#include "src/registry/url.h"

namespace msb::registry {

class Session {
 public:
  // Throws what the constructor of RegistryClient throws. ctx must outlive the session.
  Session(const Context& ctx, std::string registry, const RegistryOptions& options);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::string& registry() const { return registry_; }
  // Returns the URL of something in a repository: REGISTRY/v2/REPOSITORY/PATH.
  Url UrlOf(const std::string& repository, const std::string& path) const;

  // Makes a request, and calls answered with a response that is not transient: any status but 401,
  // 403, 408, 429 and 5xx, unless the request wants them reported. Failures are thrown by Step.
  void Send(RegistryRequest request, Answered answered);
  // Begins one transfer. done is called by Step.
  void Transfer(HttpRequest request, HttpClient::Done done);
  // Calls send when a request may be sent to the registry: at once, or by Step.
  void Admit(std::function<void()> send);
  // Schedules a call of again for the time when the failed request may be repeated, and increments
  // repetitions, the number of repetitions so far. If the registry limits the rate of requests
  // (429, 503), all requests pause instead, and repetitions stays the same: what counts is the
  // number of pauses since a request made progress.
  // Throws kRegistryUnavailable if no further repetition is allowed.
  void Repeat(int& repetitions, const Subject& subject, const HttpResponse& response,
              std::function<void()> again);
  // Records that the registry has answered a request whose operation thereby made progress. An
  // operation must call this a limited number of times; otherwise its refusals would never end it.
  void OnAnswer();
  // Throws kRegistryUnavailable for a failed request.
  [[noreturn]] void ThrowUnavailable(const Subject& subject, const HttpResponse& response,
                                     std::string_view next_step) const;

  // Runs the transfers, for at most 50 ms and not longer than until the context ends.
  void Step();
  void Wake() noexcept { http_.Wake(); }
  std::uint64_t TakeTraffic() { return http_.TakeTraffic(); }

  Authenticator& authenticator() { return authenticator_; }
  // Returns why a request failed, without secrets.
  std::string Explain(const HttpResponse& response) const;

 private:
  using Time = std::chrono::steady_clock::time_point;

  // Returns a function that finds the credentials. Checks the credentials in the options
  // immediately.
  std::function<Credentials()> CredentialsFinder() const;
  void RunTimers();
  // Sends the waiting requests, as far as the throttle allows.
  void SendAdmitted();
  // Returns the time that the registry asks to wait for, or nullopt. Throws kRegistryUnavailable if
  // it is too long.
  std::optional<std::chrono::milliseconds> RequestedDelay(const Subject& subject,
                                                          const HttpResponse& response) const;

  const Context& ctx_;
  const std::string registry_;
  const RegistryOptions options_;
  const Url base_;
  std::minstd_rand random_;
  Throttle throttle_;
  std::deque<std::function<void()>> admitted_;  // The requests that wait to be sent.
  unsigned in_flight_ = 0;                      // Transfers that have begun.
  HttpClient http_;
  Authenticator authenticator_;
  std::multimap<Time, std::function<void()>> timers_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_SESSION_H_
