// SPDX-License-Identifier: Apache-2.0
//
// Runs a tool such as qemu-img that is killed when the thread that started it ends. So a killed
// worker leaves no tool behind that still writes to its sandboxes.

#ifndef MSB_TESTS_SOAK_COMMAND_H_
#define MSB_TESTS_SOAK_COMMAND_H_

#include <string>

#include "tests/support/support.h"

namespace msb::soak {

// command must be a simple shell command: a program and its arguments.
inline test::CommandResult RunTied(const std::string& command) {
  return test::RunCommand("exec setpriv --pdeathsig KILL " + command);
}

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_COMMAND_H_
