// SPDX-License-Identifier: Apache-2.0

#include "src/registry/throttle.h"

#include <algorithm>
#include <cstdint>

#include "src/registry/retry.h"

namespace msb::registry {
namespace {

// The number of answers per allowed request after which one more request is allowed.
constexpr double kAnswersPerStep = 4;
constexpr int kMaxPauses = 10;  // The delay does not grow further.
constexpr std::chrono::milliseconds kLongestJitter{1000};

}  // namespace

bool Throttle::Allows(unsigned in_flight, Time now) const {
  return now >= resume_ && static_cast<double>(in_flight) + 1 <= allowed_;
}

void Throttle::OnRefusal(std::optional<std::chrono::milliseconds> requested, Time now) {
  // Requests that were sent before the pause do not count again.
  if (now >= resume_ && has_sent_) {
    has_sent_ = false;
    resume_ = now + BackoffDelay(pauses_, random_);
    pauses_ = std::min(pauses_ + 1, kMaxPauses);
    ++vain_pauses_;
    allowed_ = std::max(1.0, allowed_ / 2);
  }
  if (!requested) return;
  // Clients that were refused at the same time should not return at the same time.
  const auto jitter = std::min(kLongestJitter, *requested / 4);
  const auto extra = std::uniform_int_distribution<std::int64_t>(0, jitter.count())(random_);
  resume_ = std::max(resume_, now + *requested + std::chrono::milliseconds(extra));
}

void Throttle::OnAnswer() {
  vain_pauses_ = 0;
  pauses_ = std::max(pauses_ - 1, 0);
  allowed_ = std::min(connections_, allowed_ + 1 / (kAnswersPerStep * allowed_));
}

}  // namespace msb::registry
