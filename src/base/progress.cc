// SPDX-License-Identifier: Apache-2.0

#include "src/base/progress.h"

#include <algorithm>

namespace msb::base {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(50);

}  // namespace

ProgressMeter::ProgressMeter(const Context& ctx, std::string_view phase, std::uint64_t total)
    : ctx_(ctx), phase_(phase), total_(total), last_report_(std::chrono::steady_clock::now()) {}

void ProgressMeter::Add(std::uint64_t bytes) {
  ctx_.Check();
  const std::uint64_t done = done_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  if (!Wanted(ctx_)) return;
  const std::unique_lock lock(reporting_, std::try_to_lock);
  if (!lock) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_report_ < kInterval) return;
  last_report_ = now;
  Report(done);
}

void ProgressMeter::Finish() {
  if (!Wanted(ctx_)) return;
  const std::lock_guard lock(reporting_);
  Report(done());
}

void ProgressMeter::Report(std::uint64_t done) {
  reported_ = std::max(reported_, done);
  // A file that grows while it is read has more bytes than the total.
  ctx_.progress()({.phase = phase_,
                   .bytes_done = reported_,
                   .bytes_total = std::max(total_.load(std::memory_order_relaxed), reported_),
                   .bytes_saved = saved_.load(std::memory_order_relaxed)});
}

}  // namespace msb::base
