// Counts the bytes of one phase of a call, tells the Context's progress function, and checks the
// Context on the way.

#ifndef MSB_SRC_BASE_PROGRESS_H_
#define MSB_SRC_BASE_PROGRESS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string_view>

#include "msb/context.h"

namespace msb::base {

class ProgressMeter {
 public:
  // phase must outlive the meter. total is only a figure to report; 0 if nobody listens.
  ProgressMeter(const Context& ctx, std::string_view phase, std::uint64_t total);

  // True if somebody listens, and so total is worth finding out.
  static bool Wanted(const Context& ctx) { return static_cast<bool>(ctx.progress()); }

  // Throws kCancelled. May be called from several threads.
  void Add(std::uint64_t bytes);
  // The last report; call once when the phase is done.
  void Finish();

 private:
  void Report(std::uint64_t done);

  const Context& ctx_;
  const std::string_view phase_;
  const std::uint64_t total_;
  std::atomic<std::uint64_t> done_ = 0;
  std::mutex reporting_;  // Guards the two below, and that one report is made at a time.
  std::uint64_t reported_ = 0;
  std::chrono::steady_clock::time_point last_report_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_PROGRESS_H_
