// SPDX-License-Identifier: Apache-2.0
//
// Rewords messages of the library for users of the program.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_WORDING_H_
#define MSB_TOOLS_MSB_SNAPSHOT_WORDING_H_

#include <string>

namespace msb::program {

// Returns a message of the library with the options and commands of the program in place of names
// of the API: "set QemuConfig::kernel" becomes "set --kernel".
std::string InWordsOfProgram(std::string message);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_WORDING_H_
