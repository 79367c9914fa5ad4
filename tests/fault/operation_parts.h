// SPDX-License-Identifier: Apache-2.0
//
// Building blocks of the operations that the walks try.

#ifndef MSB_TESTS_FAULT_OPERATION_PARTS_H_
#define MSB_TESTS_FAULT_OPERATION_PARTS_H_

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/fault/fault_home.h"
#include "tests/fault/operations.h"

namespace msb::test {

inline const Context kCtx = Context::Background();

using Run = std::function<void(FaultHome& home, const std::function<void()>& begin)>;
using Expectation = std::function<void(FaultHome& home, const Outcome& outcome)>;

// Return a Run that makes the call with a client whose new sandboxes have raw or qcow2 disks.
Run Raw(std::function<void(FaultHome& home, Client& client)> call);
Run Qcow2(std::function<void(FaultHome& home, Client& client)> call);

// Returns the digest of the artifact at path, or an empty string if path does not exist. Expects an
// artifact that exists to be complete and undamaged.
std::string DigestAt(FaultHome& home, const std::filesystem::path& path);
// Expects the artifact or sandbox at path, which the operation makes, to exist if the operation was
// done and to be absent if it failed.
void ExpectMade(const Outcome& outcome, const std::filesystem::path& path);
// Returns an Expectation that checks this for a snapshot in the home, and also that the snapshot is
// complete if it exists.
Expectation Makes(std::string snapshot);

// Adds the operations on sandboxes whose seal was interrupted, and the seals that write a complete
// disk.
void AddSealOperations(std::vector<Operation>& all);
void AddRestoreOperations(std::vector<Operation>& all);
void AddPruneOperations(std::vector<Operation>& all);

}  // namespace msb::test

#endif  // MSB_TESTS_FAULT_OPERATION_PARTS_H_
