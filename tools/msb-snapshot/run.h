// SPDX-License-Identifier: Apache-2.0
//
// Parses the command line, runs the command, and ends the output.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_RUN_H_
#define MSB_TOOLS_MSB_SNAPSHOT_RUN_H_

namespace msb::program {

// Runs the program with the arguments of main(). Returns its exit code.
int Main(int argc, char** argv);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_RUN_H_
