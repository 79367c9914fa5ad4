// SPDX-License-Identifier: Apache-2.0
//
// Runs a program to completion and captures its output.

#ifndef MSB_SRC_BASE_COMMAND_H_
#define MSB_SRC_BASE_COMMAND_H_

#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "msb/context.h"

namespace msb::base {

inline constexpr std::size_t kMaxCommandOutput = 1 << 20;

// A Command describes a program to run.
struct Command {
  std::filesystem::path program = {};       // Path of the executable; PATH is not searched.
  std::vector<std::string> arguments = {};  // Without argv[0].
  // Variables to add to this process's environment, or to replace in it.
  std::vector<std::pair<std::string, std::string>> environment = {};
  // What the program reads from its standard input, which is a file in memory. Default: nothing,
  // from /dev/null.
  std::string input = {};
  // How much of the standard output and of the standard error is kept, in bytes.
  std::size_t max_output = kMaxCommandOutput;
};

// A CommandResult describes how a command ended.
struct CommandResult {
  int exit_status = 0;        // 128 + N if signal N ended the program, as in shells.
  std::string output;         // The first Command::max_output bytes of its standard output.
  std::string error;          // The same for its standard error.
  bool is_truncated = false;  // Output was discarded.
};

// Runs the program in a process group of its own. Returns when the program has ended, even if
// processes that it started still run and keep its standard output or standard error open.
// Throws kCancelled if ctx ends first; the process group is killed.
// Throws kInvalidConfig if the program may not be executed.
// Throws kInvalidArgument if an argument contains a NUL.
// Throws kUnsupportedOperation if this process ignores SIGCHLD or has set SA_NOCLDWAIT, because the
// kernel would discard the exit status.
// Throws kIO if a system call fails.
CommandResult RunCommand(const Context& ctx, const Command& command);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_COMMAND_H_
