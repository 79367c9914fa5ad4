// SPDX-License-Identifier: Apache-2.0
//
// Adapts the requests of a session to a registry that limits their rate.

#ifndef MSB_SRC_REGISTRY_THROTTLE_H_
#define MSB_SRC_REGISTRY_THROTTLE_H_

#include <chrono>
#include <optional>
#include <random>

namespace msb::registry {

// A Throttle decides when the next request may be sent. If the registry refuses a request with the
// status 429 or 503, all requests pause, and fewer of them are made at the same time; while the
// registry answers, their number slowly returns to the initial one.
class Throttle {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // connections is the maximum number of requests that are made at the same time.
  Throttle(unsigned connections, std::minstd_rand& random)
      : connections_(connections), allowed_(connections), random_(random) {}

  // Returns true if a request may be sent while in_flight others are being made.
  bool Allows(unsigned in_flight, Time now) const;
  // Returns when requests may be sent again.
  Time resume() const { return resume_; }
  // Returns the number of pauses since the last answer.
  int vain_pauses() const { return vain_pauses_; }

  // Records that a request is sent.
  void OnSend() { has_sent_ = true; }
  // Records that the registry has refused a request. requested is the delay that it asked for. The
  // pause is at least that long, and at least as long as the delay of BackoffDelay, which grows
  // with each pause.
  void OnRefusal(std::optional<std::chrono::milliseconds> requested, Time now);
  // Records that a request has made progress.
  void OnAnswer();

 private:
  const double connections_;
  double allowed_;  // How many requests may be made at the same time, at least 1.
  std::minstd_rand& random_;
  int pauses_ = 0;  // Recent pauses; each answer subtracts one.
  int vain_pauses_ = 0;
  bool has_sent_ = true;  // Whether a request was sent since the last pause began.
  Time resume_ = {};
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_THROTTLE_H_
