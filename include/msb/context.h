// SPDX-License-Identifier: Apache-2.0
//
// A Context carries the deadline, the cancellation and the progress function of a call. It is the
// first argument of every call, as in Go.
//
//   auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(5));
//   auto [cancellable, cancel] = ctx.WithCancel();
//
// Every call that copies, hashes, waits or walks directories checks its Context at least every
// 8 MiB or 50 ms. That includes waiting for another process: for the lock of a sandbox, an artifact
// or the cache, and for a locked index. A cancelled call throws an Error of kind kCancelled,
// changes nothing and leaves nothing behind, unless its own comment states otherwise, as for
// CreateSandbox, Sandbox::Stop, Sandbox::Exec, a live Snapshot::Create, Snapshot::Import,
// Snapshot::Prune, Snapshot::Push and Snapshot::Pull.
//
// A step that must not be left half-done is not interrupted: the exchange of a running VM's disk,
// thawing its file systems, and ending a VM, each of which takes milliseconds unless the VMM hangs.
// System calls are not interrupted either. fsync(2) takes as long as the disk needs to write the
// cached data. unlink(2), rename(2), link(2), open(2) and similar system calls may take long for
// large fragmented files, or on a network file system that does not respond. Until a function of
// this library has published its result, it checks the Context before each of these system calls.
//
// Once a new or imported snapshot is published it stays, and the call succeeds even if the Context
// ends. The call then adds the snapshot to the index. For a locked index it waits until 100 ms
// after the Context is done, and for at most 10 s in any case. If the index stays locked for
// longer, the call logs a warning, and the next Open of the snapshot by its name, or the next
// Reindex, adds it. Likewise, a removal that has begun is completed.
//
// A Context is an immutable value that is cheap to copy and that threads may share.

#ifndef MSB_CONTEXT_H_
#define MSB_CONTEXT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <ratio>
#include <stop_token>
#include <string_view>
#include <utility>

#include "msb/export.h"

namespace msb {

namespace internal {

// Converts a duration, rounding up. A value outside the range of To becomes To::min() or To::max(),
// and a floating-point NaN becomes zero.
template <typename To, typename Rep, typename Period>
constexpr To SaturatedCast(const std::chrono::duration<Rep, Period>& duration) {
  using Limits = std::numeric_limits<typename To::rep>;
  const long double count =
      std::chrono::duration<long double, typename To::period>(duration).count();
  if (count != count) return To::zero();
  if (count >= static_cast<long double>(Limits::max())) return To::max();
  if (count <= static_cast<long double>(Limits::min())) return To::min();
  const auto whole = static_cast<typename To::rep>(count);
  return To(static_cast<long double>(whole) < count ? whole + 1 : whole);
}

}  // namespace internal

// A SaturatingDuration converts from a duration of any unit, rounding up. A value outside the range
// of Duration becomes Duration::min() or Duration::max(); the conversions of <chrono> overflow.
template <typename Duration>
struct SaturatingDuration : Duration {
  constexpr SaturatingDuration() : Duration(Duration::zero()) {}
  template <typename Rep, typename Period>
  // NOLINTNEXTLINE(google-explicit-constructor): Converts like the durations of <chrono>.
  constexpr SaturatingDuration(const std::chrono::duration<Rep, Period>& other)
      : Duration(internal::SaturatedCast<Duration>(other)) {}
};

// A Progress reports how far a call has come. The sizes count bytes of data, without the holes of
// sparse files; for Import, they count the bytes of the archive, and for Push and Pull, the bytes
// that cross the network.
struct Progress {
  // "copy", "verify", "flatten", "export", "import", "push" or "pull". Valid only until the
  // progress function returns.
  std::string_view phase;
  // Never decreases within a phase, but the phase starts again if a disk must be read again.
  std::uint64_t bytes_done = 0;
  // Equal to bytes_done if the total is not known, as when an archive is read from a pipe. For
  // Push it is an estimate, since it is not known how well the rest can be compressed.
  std::uint64_t bytes_total = 0;
  // Push and Pull: bytes that did not have to cross the network, because the registry has them
  // already, or this machine. Otherwise 0.
  std::uint64_t bytes_saved = 0;
};

// Receives the progress of a call. It is called at most 20 times a second and once at the end of
// each phase, on any thread, but never concurrently for the same call. If it throws, the call ends
// and passes the exception on to its caller.
using ProgressFunction = std::function<void(const Progress&)>;

// Cancels the Context that it was returned with, and all Contexts derived from that. It may be
// called from any thread, any number of times.
using CancelFunction = std::function<void()>;

class MSB_EXPORT Context {
 public:
  // A move copies, so every Context keeps its value.
  Context(const Context&) = default;
  Context(Context&& other) noexcept { *this = other; }
  Context& operator=(const Context&) = default;
  Context& operator=(Context&& other) noexcept { return *this = std::as_const(other); }
  ~Context() = default;

  // Returns a Context that is never cancelled and has no deadline and no progress function.
  [[nodiscard]] static Context Background();

  // The functions below derive a Context: each returns a new Context that inherits the deadline,
  // the cancellation and the progress function of this one. The earlier of two deadlines counts,
  // and a new progress function replaces an inherited one.
  //
  // A time-out or deadline may have any unit. If it is too far away to be counted in nanoseconds
  // (292 years), it never passes, so WithTimeout(std::chrono::hours::max()) sets no limit. If it is
  // zero, negative, in the past or a floating-point NaN, the Context is Done() at once. A deadline
  // is converted to a time-out when it is set, so later changes of its clock do not move it.

  // Returns a Context whose deadline is this long from now.
  [[nodiscard]] Context WithTimeout(std::chrono::nanoseconds timeout) const;
  template <typename Rep, typename Period>
  [[nodiscard]] Context WithTimeout(const std::chrono::duration<Rep, Period>& timeout) const {
    return WithTimeout(internal::SaturatedCast<std::chrono::nanoseconds>(timeout));
  }
  // Returns a Context with this deadline.
  [[nodiscard]] Context WithDeadline(std::chrono::system_clock::time_point deadline) const;
  template <typename Clock, typename Duration>
  [[nodiscard]] Context WithDeadline(
      const std::chrono::time_point<Clock, Duration>& deadline) const {
    using Nanoseconds = std::chrono::duration<long double, std::nano>;
    return WithTimeout(Nanoseconds(deadline.time_since_epoch()) -
                       Nanoseconds(Clock::now().time_since_epoch()));
  }
  // Returns a Context and the function that cancels it.
  [[nodiscard]] std::pair<Context, CancelFunction> WithCancel() const;
  // Returns a Context that is cancelled when a stop is requested through token.
  [[nodiscard]] Context WithCancel(std::stop_token token) const;
  // Returns a Context that reports progress to this function.
  [[nodiscard]] Context WithProgress(ProgressFunction progress) const;

  // Returns true once the Context is cancelled or past its deadline.
  [[nodiscard]] bool Done() const;

  // Throws kCancelled if Done().
  void Check() const;

  // Returns the time left until the deadline, or zero if it has passed. Returns nullopt if there is
  // no deadline.
  [[nodiscard]] std::optional<std::chrono::nanoseconds> TimeLeft() const;

  // Returns the progress function, which is empty if there is none.
  [[nodiscard]] const ProgressFunction& progress() const;

 private:
  struct State;
  explicit Context(std::shared_ptr<const State> state);

  std::shared_ptr<const State> state_;
};

}  // namespace msb

#endif  // MSB_CONTEXT_H_
