// SPDX-License-Identifier: Apache-2.0
//
// Runs a program on a pseudo-terminal, as a user would.

#ifndef MSB_TESTS_PROGRAM_TERMINAL_H_
#define MSB_TESTS_PROGRAM_TERMINAL_H_

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/file.h"
#include "tests/program/process.h"

namespace msb::test {

inline constexpr std::string_view kCtrlC = "\x03";

class Terminal {
 public:
  // Starts a program whose standard streams are a new terminal with this many columns.
  Terminal(std::size_t columns, const std::vector<std::string>& arguments,
           const ProcessOptions& options);
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal();  // Ends the program if Wait() has not been called.

  pid_t pid() const { return pid_; }

  // Waits until text has appeared in the output. Returns false if the program ends first, or if
  // nothing is printed for two minutes.
  bool Shows(std::string_view text);
  // Types keys.
  void Type(std::string_view keys);
  // Waits until the program ends. Returns its exit code.
  int Wait();

  // Returns everything that was printed so far, with its escape sequences.
  const std::string& output() const { return output_; }

 private:
  bool Read();

  pid_t pid_ = -1;
  base::UniqueFd master_;
  std::string output_;
};

// Returns the lines that a terminal shows after it has received output, without trailing empty
// lines. Understands carriage returns, line feeds, "erase to the end of the line", and colors.
std::vector<std::string> ScreenAfter(std::string_view output);

// Returns the largest number of columns that output ever filled, regardless of what was erased.
std::size_t WidthOf(std::string_view output);

}  // namespace msb::test

#endif  // MSB_TESTS_PROGRAM_TERMINAL_H_
