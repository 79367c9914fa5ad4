// SPDX-License-Identifier: Apache-2.0
//
// Tries the operations of the API on a home, as docs/environments.md lists them.

#ifndef MSB_TESTS_ENVIRONMENTS_OPERATIONS_H_
#define MSB_TESTS_ENVIRONMENTS_OPERATIONS_H_

#include <filesystem>
#include <string>
#include <vector>

namespace msb::test {

// Whether an operation needs a home that it can write to.
enum class Access { kReads, kWrites };
enum class Outcome { kTried, kSkipped };

struct OperationResult {
  std::string name;
  Access access = Access::kReads;
  Outcome outcome = Outcome::kTried;
  std::string error;  // Empty if it succeeded with the correct result; else one line.
};

// Makes the home. Everything is in one directory:
//   base.img  a raw image
//   home/     sandboxes "raw" and "old-raw", "cow" and "old-cow" (qcow2), snapshots of them with
//             the same names; the qcow2 sandboxes are backed by hard links to one cached image
// Throws if the home cannot be made.
void MakeEnvironmentHome(const std::filesystem::path& root);

// Tries each operation of the API that needs no VM. out is a writable directory outside of the
// home. repository is a repository of a registry, "HOST:PORT/NAME"; if it is empty, the operations
// that need it are skipped.
std::vector<OperationResult> TryOperations(const std::filesystem::path& root,
                                           const std::filesystem::path& out,
                                           const std::string& repository = {});

}  // namespace msb::test

#endif  // MSB_TESTS_ENVIRONMENTS_OPERATIONS_H_
