// SPDX-License-Identifier: Apache-2.0
//
// Tries each operation of the API once on a home, as docs/environments.md lists them.

#ifndef MSB_TESTS_ENVIRONMENTS_OPERATIONS_H_
#define MSB_TESTS_ENVIRONMENTS_OPERATIONS_H_

#include <filesystem>
#include <string>
#include <vector>

namespace msb::test {

struct OperationResult {
  std::string name;
  std::string error;  // Empty if it succeeded with the correct result; else one line.
};

// Makes the home. Everything is in one directory:
//   base.img  a raw image
//   home/     sandboxes "raw" and "old-raw", "cow" and "old-cow" (qcow2), snapshots of them with
//             the same names; the qcow2 sandboxes are backed by hard links to one cached image
// Throws if the home cannot be made.
void MakeEnvironmentHome(const std::filesystem::path& root);

// Tries each operation. out is a writable directory outside of the home.
std::vector<OperationResult> TryOperations(const std::filesystem::path& root,
                                           const std::filesystem::path& out);

}  // namespace msb::test

#endif  // MSB_TESTS_ENVIRONMENTS_OPERATIONS_H_
