// SPDX-License-Identifier: Apache-2.0
//
// Maps errors to the exit codes of the program. The man page and docs/program.md list them.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_EXIT_CODE_H_
#define MSB_TOOLS_MSB_SNAPSHOT_EXIT_CODE_H_

#include <string_view>
#include <vector>

#include "msb/error.h"

namespace msb::program {

inline constexpr int kSuccess = 0;
// Several names failed with different kinds of error, or doctor found a problem.
inline constexpr int kFailure = 1;
inline constexpr int kUsage = 2;         // The command line is invalid.
inline constexpr int kSignalBase = 128;  // 128 + N: signal N ended the command.
inline constexpr int kBrokenPipe = 141;  // The reader of the output closed the pipe (SIGPIPE).

struct ExitCode {
  int code;
  std::string_view name;     // The name of the ErrorKind; empty for codes without one.
  std::string_view meaning;  // For the man page.
};

// Returns all exit codes in ascending order.
const std::vector<ExitCode>& ExitCodes();

// Returns the exit code for errors of this kind.
int ExitCodeOf(ErrorKind kind);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_EXIT_CODE_H_
