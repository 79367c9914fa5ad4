// SPDX-License-Identifier: Apache-2.0
//
// Runs msb-snapshot in a home of its own.

#ifndef MSB_TESTS_PROGRAM_PROGRAM_HOME_H_
#define MSB_TESTS_PROGRAM_PROGRAM_HOME_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/program/process.h"
#include "tests/support/support.h"

namespace msb::test {

// The exit codes that the tests expect, by the kind of error.
inline constexpr int kUsageCode = 2;
inline constexpr int kInvalidArgumentCode = 21;
inline constexpr int kSandboxNotFoundCode = 10;
inline constexpr int kSnapshotNotFoundCode = 14;
inline constexpr int kSnapshotAlreadyExistsCode = 15;
inline constexpr int kIntegrityCode = 18;
inline constexpr int kIoCode = 19;
inline constexpr int kCancelledCode = 23;
inline constexpr int kUnsupportedCode = 24;
inline constexpr int kUnauthorizedCode = 27;
inline constexpr int kUnavailableCode = 28;

// The base of the tests of the program: a home without sandboxes and snapshots, and a directory.
class ProgramTest : public testing::Test {
 protected:
  using Arguments = std::vector<std::string>;

  ProgramTest();

  // Returns the complete command line: the program and its arguments.
  static std::vector<std::string> Command(const Arguments& arguments);
  // Runs the program.
  ProcessResult Run(const Arguments& arguments, const std::string& input = {}) const;
  // Runs the program, and expects it to succeed and to print nothing to standard error. Returns
  // standard output.
  std::string Output(const Arguments& arguments) const;
  // Runs the program with --json, and expects standard output to match a definition of the schema.
  // Returns the document.
  nlohmann::json Document(const std::string& definition, Arguments arguments,
                          int exit_code = 0) const;
  // Runs a command of bash, in which $P is the program.
  ProcessResult Bash(const std::string& command) const;

  // Creates a stopped sandbox with a disk of 1 MiB, or of noise if noise is not 0.
  void MakeSandbox(const std::string& name, std::uint64_t noise = 0) const;
  // Creates a sandbox, "base", and a snapshot of it.
  void MakeSnapshot(const std::string& name, const Arguments& options = {}) const;
  // Changes a byte of the disk of a snapshot.
  void Damage(const std::string& snapshot) const;
  // Returns whether the home has this snapshot.
  bool HasSnapshot(const std::string& name) const;

  TempDir dir_;
  const std::filesystem::path home_ = dir_ / "home";
  ProcessOptions options_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_PROGRAM_PROGRAM_HOME_H_
