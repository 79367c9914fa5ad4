// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/progress_bar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

constexpr auto kLineInterval = std::chrono::seconds(10);
// A bar with fewer columns shows nothing that the percentage does not.
constexpr std::size_t kMinBar = 10;
constexpr std::size_t kMaxBar = 50;

double Fraction(const ProgressState& state) {
  const std::uint64_t total = state.total.value_or(0);
  if (total == 0) return 1;
  return std::min(1.0, static_cast<double>(state.done) / static_cast<double>(total));
}

std::string Sizes(const ProgressState& state) {
  if (!state.total) return HumanBytes(state.done);
  return fmt::format("{} of {}", HumanBytes(state.done), HumanBytes(*state.total));
}

// Returns the rate and the time left; nothing before there is anything to measure.
std::vector<std::string> Speed(const ProgressState& state) {
  const double seconds = state.elapsed.count();
  if (seconds < 0.1 || state.done == 0) return {};
  const double rate = static_cast<double>(state.done) / seconds;
  std::vector<std::string> parts = {
      fmt::format("{}/s", HumanBytes(static_cast<std::uint64_t>(rate)))};
  if (state.total && *state.total > state.done) {
    const double left = static_cast<double>(*state.total - state.done) / rate;
    parts.push_back(
        fmt::format("{} left", HumanDuration(std::chrono::seconds(std::llround(left)))));
  }
  return parts;
}

std::string Bar(double fraction, std::size_t columns) {
  const auto filled = static_cast<std::size_t>(fraction * static_cast<double>(columns - 2));
  return fmt::format("[{:#<{}}{:-<{}}]", "", filled, "", columns - 2 - filled);
}

}  // namespace

std::string ProgressLine(const ProgressState& state, std::size_t columns) {
  // The last column stays free: some terminals begin a new line after it.
  const std::size_t room = columns - std::min<std::size_t>(columns, 1);
  std::string line = state.phase;
  if (state.total) line += fmt::format(" {:3.0f}%", std::min(99.0, Fraction(state) * 100));
  if (state.total && state.done >= *state.total) line = fmt::format("{} 100%", state.phase);
  std::vector<std::string> parts = Speed(state);
  parts.push_back(Sizes(state));
  if (state.saved > 0) parts.push_back(fmt::format("{} saved", HumanBytes(state.saved)));
  std::string tail;
  for (const std::string& part : parts) {
    if (line.size() + tail.size() + 2 + part.size() <= room) tail += "  " + part;
  }
  const std::size_t used = line.size() + tail.size();
  if (state.total && used + 1 + kMinBar <= room) {
    line += " " + Bar(Fraction(state), std::min(room - used - 1, kMaxBar));
  }
  return (line + tail).substr(0, room);
}

ProgressBar::ProgressBar() : on_terminal_(CanMoveCursor(Stream::kError)) {}

void ProgressBar::Begin(const Progress& progress) {
  state_ = {
      .phase = std::string(progress.phase), .done = 0, .total = {}, .saved = 0, .elapsed = {}};
  begin_ = last_line_ = Clock::now();
  total_known_ = false;
}

void ProgressBar::Update(const Progress& progress) {
  if (state_.phase != progress.phase) Begin(progress);
  const Clock::time_point now = Clock::now();
  state_.done = progress.bytes_done;
  state_.saved = progress.bytes_saved;
  // The total is not known while an archive is read from a pipe; it is then equal to what is done.
  total_known_ =
      total_known_ || progress.phase != "import" || progress.bytes_total != progress.bytes_done;
  state_.total = total_known_ ? std::optional(progress.bytes_total) : std::nullopt;
  state_.elapsed = now - begin_;
  if (on_terminal_) {
    const std::string line = ProgressLine(state_, TerminalColumns(Stream::kError));
    Put(fmt::format("\r{}\x1b[K", line), Stream::kError);
    std::fflush(stderr);
    visible_ = true;
  } else if (now - last_line_ >= kLineInterval) {
    Put(fmt::format("{}\n", ProgressLine(state_, 80)), Stream::kError);
    last_line_ = now;
  }
}

void ProgressBar::Clear() {
  if (!visible_) return;
  Put("\r\x1b[K", Stream::kError);
  std::fflush(stderr);
  visible_ = false;
}

}  // namespace msb::program
