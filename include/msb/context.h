// A Context bounds a call: when it must end, who may cancel it, and who is told how far it is. It
// is the first argument of every call, as in Go.
//
//   auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(5));
//   auto [cancellable, cancel] = ctx.WithCancel();
//
// Every call that copies, hashes, waits or walks checks its Context at least every 8 MiB or 50 ms.
// A cancelled call throws Error of kind kCancelled, leaves nothing behind and changes nothing.
//
// A Context is an immutable value: copying it is cheap, and threads may share it.

#ifndef MSB_CONTEXT_H_
#define MSB_CONTEXT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string_view>
#include <utility>

#include "msb/export.h"

namespace msb {

// How far a call is. Bytes are bytes of data: the holes of sparse files are in neither figure.
struct Progress {
  std::string_view phase;  // "copy", "verify", …; valid during the call of the function only.
  std::uint64_t bytes_done = 0;  // Never decreases within a phase.
  std::uint64_t bytes_total = 0;
};

// Called at most 20 times a second and once at the end of each phase, never twice at a time, but
// on any thread. What it throws ends the call it reports on, and reaches that call's caller.
using ProgressFunction = std::function<void(const Progress&)>;

// Cancels the Context it came with. May be called from any thread, any number of times.
using CancelFunction = std::function<void()>;

class MSB_EXPORT Context {
 public:
  // Never cancelled, no deadline, no progress.
  static Context Background();

  // Each of these returns a Context that also honours what the receiver does. Of two deadlines the
  // earlier counts; of two progress functions the later set.
  Context WithTimeout(std::chrono::nanoseconds timeout) const;
  Context WithDeadline(std::chrono::system_clock::time_point deadline) const;
  std::pair<Context, CancelFunction> WithCancel() const;
  Context WithCancel(std::stop_token token) const;
  Context WithProgress(ProgressFunction progress) const;

  // True once cancelled or past the deadline.
  bool Done() const;

  // Throws Error of kind kCancelled if Done().
  void Check() const;

  // The time left until the deadline, not negative; nothing if there is no deadline.
  std::optional<std::chrono::nanoseconds> TimeLeft() const;

  // The progress function; empty if there is none.
  const ProgressFunction& progress() const;

 private:
  struct State;
  explicit Context(std::shared_ptr<const State> state);

  std::shared_ptr<const State> state_;
};

}  // namespace msb

#endif  // MSB_CONTEXT_H_
