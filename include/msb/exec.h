// SPDX-License-Identifier: Apache-2.0
//
// The options and the result of a command that runs in the guest of a sandbox (Sandbox::Exec).

#ifndef MSB_EXEC_H_
#define MSB_EXEC_H_

#include <map>
#include <string>

#include "msb/export.h"

namespace msb {

// The options of Exec. Strings must not contain a NUL, except for input.
struct ExecOptions {
  // Variables that are added to the environment of the command. Names must not be empty or contain
  // '='. Default: none.
  std::map<std::string, std::string> env = {};
  std::string cwd = {};    // The command's directory, an absolute path. Default: the agent's.
  std::string user = {};   // The user that runs the command. Default: the agent's, usually root.
  std::string input = {};  // The command's standard input, of any bytes. Default: empty.
};

// The result of a command that has ended.
struct ExecResult {
  // The exit code, 0 to 255, or 128 plus the number of the signal that ended the command.
  int exit_code = 0;
  std::string out = {};  // What the command wrote to standard output, of any bytes.
  std::string err = {};  // What the command wrote to standard error, of any bytes.
};

}  // namespace msb

#endif  // MSB_EXEC_H_
