// SPDX-License-Identifier: Apache-2.0

#include "msb/context.h"

#include <algorithm>
#include <vector>

#include "msb/error.h"

namespace msb {

using SteadyTime = std::chrono::steady_clock::time_point;

struct Context::State {
  std::optional<SteadyTime> deadline;
  std::vector<std::stop_token> tokens;
  ProgressFunction progress;
};

namespace {

// Returns now + timeout without overflow, and never before now, so that the time left does not
// overflow either.
SteadyTime DeadlineAfter(std::chrono::nanoseconds timeout) {
  const SteadyTime now = std::chrono::steady_clock::now();
  if (timeout <= std::chrono::nanoseconds::zero()) return now;
  return timeout < SteadyTime::max() - now ? now + timeout : SteadyTime::max();
}

}  // namespace

Context::Context(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Context Context::Background() {
  // Not a static object: its initialization takes a lock, and it would be destroyed before others.
  return Context(std::make_shared<const State>());
}

Context Context::WithTimeout(std::chrono::nanoseconds timeout) const {
  auto state = std::make_shared<State>(*state_);
  const SteadyTime deadline = DeadlineAfter(timeout);
  state->deadline = state_->deadline ? std::min(*state_->deadline, deadline) : deadline;
  return Context(std::move(state));
}

Context Context::WithDeadline(std::chrono::system_clock::time_point deadline) const {
  const auto now = std::chrono::system_clock::now();
  // The subtraction would overflow for time_point::min() and its like.
  if (deadline <= now) return WithTimeout(std::chrono::nanoseconds::zero());
  return WithTimeout(deadline - now);
}

std::pair<Context, CancelFunction> Context::WithCancel() const {
  std::stop_source source;
  return {WithCancel(source.get_token()), [source]() mutable { source.request_stop(); }};
}

Context Context::WithCancel(std::stop_token token) const {
  auto state = std::make_shared<State>(*state_);
  state->tokens.push_back(std::move(token));
  return Context(std::move(state));
}

Context Context::WithProgress(ProgressFunction progress) const {
  auto state = std::make_shared<State>(*state_);
  state->progress = std::move(progress);
  return Context(std::move(state));
}

bool Context::Done() const {
  const auto stopped = [](const std::stop_token& token) { return token.stop_requested(); };
  return std::any_of(state_->tokens.begin(), state_->tokens.end(), stopped) ||
         (state_->deadline && std::chrono::steady_clock::now() >= *state_->deadline);
}

void Context::Check() const {
  if (!Done()) return;
  const bool late = state_->deadline && std::chrono::steady_clock::now() >= *state_->deadline;
  throw Error(ErrorKind::kCancelled, late ? "deadline exceeded" : "cancelled");
}

std::optional<std::chrono::nanoseconds> Context::TimeLeft() const {
  if (!state_->deadline) return std::nullopt;
  const auto left = *state_->deadline - std::chrono::steady_clock::now();
  return std::max(left, std::chrono::steady_clock::duration::zero());
}

const ProgressFunction& Context::progress() const { return state_->progress; }

}  // namespace msb
