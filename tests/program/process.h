// SPDX-License-Identifier: Apache-2.0
//
// Starts programs with their streams, environment and directory, and collects what they print.

#ifndef MSB_TESTS_PROGRAM_PROCESS_H_
#define MSB_TESTS_PROGRAM_PROCESS_H_

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace msb::test {

using Environment = std::map<std::string, std::string>;

struct ProcessOptions {
  // The complete environment. Default: nothing is inherited.
  Environment environment = {};
  // Default: that of this process.
  std::filesystem::path directory = {};
  // What the process reads from standard input, which is a pipe.
  std::string input = {};
};

// Descriptors that a process gets as its standard streams. -1: the stream is closed.
struct Streams {
  int in = -1;
  int out = -1;
  int err = -1;
};

struct ProcessResult {
  int exit_code = -1;  // 128 + the number of the signal if one killed the process.
  bool killed = false;
  std::string out;
  std::string err;
};

// Starts a program, which arguments[0] names. Returns its pid.
pid_t StartProcess(const std::vector<std::string>& arguments, const ProcessOptions& options,
                   const Streams& streams);

// Waits until a process ends. Returns its exit code, and sets killed if a signal ended it.
int WaitForProcess(pid_t pid, bool* killed = nullptr);

// Runs a program until it ends.
ProcessResult RunProcess(const std::vector<std::string>& arguments, const ProcessOptions& options);

// Replaces this process by the program. Returns only if that fails.
void Execute(const std::vector<std::string>& arguments, const ProcessOptions& options);

}  // namespace msb::test

#endif  // MSB_TESTS_PROGRAM_PROCESS_H_
