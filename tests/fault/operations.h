// SPDX-License-Identifier: Apache-2.0
//
// All operations that change a home, for the walks that try them with crashes and faults.

#ifndef MSB_TESTS_FAULT_OPERATIONS_H_
#define MSB_TESTS_FAULT_OPERATIONS_H_

#include <functional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "tests/fault/fault_home.h"

namespace msb::test {

// How an operation ended after a walk interfered with it.
struct Outcome {
  bool done = false;       // The operation returned.
  bool refused = false;    // The operation threw. If neither is set, it was killed.
  bool published = false;  // Its message says that what it made was published nevertheless.
};

struct Operation {
  std::string name;
  // Adds the objects that the operation needs to the home. Called once.
  std::function<void(FaultHome& home)> prepare = {};
  // Runs the operation, and calls begin() at the point from which the walks may interfere.
  std::function<void(FaultHome& home, const std::function<void()>& begin)> run;
  // Checks that the home agrees with the outcome.
  std::function<void(FaultHome& home, const Outcome& outcome)> expect;
  // The objects that the operation may remove or replace.
  FaultHome::Touched touched = {};
  // The errors that the operation may throw if it has been done before.
  std::set<ErrorKind> again_throws = {};
  // The walks that inject faults try only every fault_step-th call. The walk that kills ignores
  // this.
  int fault_step = 1;
};

const std::vector<Operation>& Operations();

inline void PrintTo(const Operation& operation, std::ostream* out) { *out << operation.name; }

}  // namespace msb::test

#endif  // MSB_TESTS_FAULT_OPERATIONS_H_
