// SPDX-License-Identifier: Apache-2.0
//
// Counts the bytes of one phase of a call, reports them to the progress function of the Context,
// and checks the Context.

#ifndef MSB_SRC_BASE_PROGRESS_H_
#define MSB_SRC_BASE_PROGRESS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string_view>

#include "msb/context.h"

namespace msb::base {

// A ProgressMeter represents the progress of one phase.
class ProgressMeter {
 public:
  // ctx and phase must outlive the meter. total is only reported; it may be 0 if ctx has no
  // progress function.
  ProgressMeter(const Context& ctx, std::string_view phase, std::uint64_t total);

  const Context& context() const { return ctx_; }

  // Returns true if ctx has a progress function, and the total must therefore be computed.
  static bool Wanted(const Context& ctx) { return static_cast<bool>(ctx.progress()); }

  // Adds bytes to the sum, and reports the sum if the last report was at least 50 ms ago. Throws
  // kCancelled if the Context is done. May be called from several threads.
  void Add(std::uint64_t bytes);
  // Add to and replace what is only reported. May be called from several threads.
  void AddSaved(std::uint64_t bytes) { saved_.fetch_add(bytes, std::memory_order_relaxed); }
  void SetTotal(std::uint64_t total) { total_.store(total, std::memory_order_relaxed); }
  std::uint64_t done() const { return done_.load(std::memory_order_relaxed); }
  // Makes the last report. Must be called once, when the phase is complete.
  void Finish();

 private:
  void Report(std::uint64_t done);

  const Context& ctx_;
  const std::string_view phase_;
  std::atomic<std::uint64_t> total_;
  std::atomic<std::uint64_t> saved_ = 0;
  std::atomic<std::uint64_t> done_ = 0;
  std::mutex reporting_;  // Guards the two members below, and serializes reports.
  std::uint64_t reported_ = 0;
  std::chrono::steady_clock::time_point last_report_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_PROGRESS_H_
