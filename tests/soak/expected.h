// SPDX-License-Identifier: Apache-2.0
//
// Defines which failures are expected, that is, not findings.

#ifndef MSB_TESTS_SOAK_EXPECTED_H_
#define MSB_TESTS_SOAK_EXPECTED_H_

#include "msb/error.h"
#include "tests/soak/shared.h"

namespace msb::soak {

// Returns true if the operation may fail with this kind while others use the same home. kCancelled
// is not in the table: it is expected only from calls whose Context has a deadline or is cancelled.
bool IsExpected(Op op, ErrorKind kind);

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_EXPECTED_H_
