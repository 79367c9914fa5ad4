// SPDX-License-Identifier: Apache-2.0
//
// Shows the progress of a call on standard error.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_PROGRESS_BAR_H_
#define MSB_TOOLS_MSB_SNAPSHOT_PROGRESS_BAR_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "msb/context.h"

namespace msb::program {

// The state of a phase, as it is shown.
struct ProgressState {
  std::string phase;
  std::uint64_t done = 0;              // Bytes.
  std::optional<std::uint64_t> total;  // Bytes; nullopt if not known.
  std::uint64_t saved = 0;             // Bytes that need not be transferred.
  std::chrono::duration<double> elapsed{};
};

// Returns one line without a line feed that is narrower than columns: as much of the bar, the
// sizes, the rate and the time left as there is room for.
std::string ProgressLine(const ProgressState& state, std::size_t columns);

// On a terminal, keeps one line up to date. Otherwise, prints a line every 10 seconds. Calls must
// not overlap.
class ProgressBar {
 public:
  ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar() { Clear(); }

  void Update(const Progress& progress);
  // Removes the line from the terminal.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;

  void Begin(const Progress& progress);

  const bool on_terminal_;
  bool visible_ = false;
  bool total_known_ = false;
  ProgressState state_;
  Clock::time_point begin_;
  Clock::time_point last_line_;
};

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_PROGRESS_BAR_H_
