// SPDX-License-Identifier: Apache-2.0
//
// Decides whether the state on disk after a round can be explained by the state before the round
// and the operations of the round.

#ifndef MSB_TESTS_SOAK_MODEL_H_
#define MSB_TESTS_SOAK_MODEL_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/soak/shared.h"

namespace msb::soak {

// A snapshot or a sandbox on disk.
struct Seen {
  std::uint64_t id = 0;  // Id of the operation that made it; 0 if the test did not make it.
  std::string digest;    // Set for a snapshot only.
};
using Namespace = std::map<std::string, Seen>;

// One record of the journal.
struct Event {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;  // The largest number if the operation was cut off.
  std::uint64_t id = 0;
  Op op = Op::kCreate;
  Outcome outcome = kSuccess;
  bool forced = false;
  std::string name = {};
  std::string digest = {};

  bool unfinished() const;
  // Returns true if the operation succeeded or may have succeeded.
  bool MayHaveHappened() const { return unfinished() || outcome == kSuccess; }
  std::string Describe() const;
};

// Returns the events of all threads and of the peer, in the order in which they began.
std::vector<Event> EventsOf(const Shared& shared);

enum class Kind : std::uint8_t { kSnapshots, kSandboxes };

// Describes everything that cannot be explained: objects that were lost, that came back after their
// removal, or that exist although the operation that would have made them failed.
//
// For each name, some operation must have been the last one. If an object exists, some operation
// must have made it, and no creation or removal of this name may have begun after that operation
// ended. If none exists, a removal must have ended after the last creation began.
std::vector<std::string> Unexplained(Kind kind, const Namespace& before, const Namespace& now,
                                     const std::vector<Event>& events);

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_MODEL_H_
