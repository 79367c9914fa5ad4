// Running a program to its end and keeping what it said.

#ifndef MSB_SRC_BASE_COMMAND_H_
#define MSB_SRC_BASE_COMMAND_H_

#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "msb/context.h"

namespace msb::base {

struct Command {
  std::filesystem::path program = {};       // Of the executable; not looked for on the PATH.
  std::vector<std::string> arguments = {};  // Without the name it is called by.
  // Set on top of this process's own, or in place of what is there.
  std::vector<std::pair<std::string, std::string>> environment = {};
};

inline constexpr std::size_t kMaxCommandOutput = 1 << 20;

struct CommandResult {
  int exit_status = 0;  // 128 and the signal, if one ended it, as shells tell it.
  std::string output;   // The first kMaxCommandOutput bytes of its standard output.
  std::string error;    // The same of its standard error.
};

// Runs the program in a process group of its own, without input, and returns when it has ended,
// even if what it started goes on, with its outputs open. Ended by ctx: the group is killed, and
// kCancelled thrown. kIO: it cannot be executed. kInvalidArgument: an argument that has a NUL.
// kUnsupportedOperation: this process ignores SIGCHLD, so that nobody learns how a program ended.
CommandResult RunCommand(const Context& ctx, const Command& command);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_COMMAND_H_
