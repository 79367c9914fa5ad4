// SPDX-License-Identifier: Apache-2.0
//
// Checks a home while nothing uses it.

#ifndef MSB_TESTS_SOAK_CHECK_H_
#define MSB_TESTS_SOAK_CHECK_H_

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "msb/msb.h"
#include "tests/soak/chaos.h"
#include "tests/soak/model.h"
#include "tests/soak/shared.h"

namespace msb::soak {

class Checker {
 public:
  Checker(const Places& places, Shared& shared, const Chaos& chaos);

  // Takes the current state of the home as the state before the first round.
  void Begin();
  // Checks everything after a round, and begins the next round.
  void CheckRound();
  // Removes all snapshots and sandboxes of the test. After that, nothing else of it may be left but
  // images and the index.
  void CheckEmptied();

  // Returns how often an overlay was found whose parent is missing.
  int orphans() const { return orphans_seen_; }

 private:
  void CheckArtifacts();
  void CheckArtifact(const std::string& name, const std::filesystem::path& path);
  void CheckContent(const std::string& name, const SnapshotArtifact& artifact);
  void CheckSandboxes();
  void CheckSandbox(const std::string& name);
  // Makes one more call of each kind, to sweep the stages that killed calls have left.
  void Sweep();
  void CheckLeftovers();
  void CheckIndex();
  void CheckSpace();
  void Explain();
  // Expects every snapshot that was made to be indexed, even before Reindex runs.
  void CheckIndexed(const std::vector<Event>& events);
  // Records the snapshots that may be missing because they were removed by force, and those that
  // may be absent from the index because the operation was cut off.
  void AccountRemovals(const std::vector<Event>& events);
  std::vector<std::string> UnexplainedOrphans();
  void Find(const std::string& what) { soak::Find(places_, what); }
  // Makes a call that must succeed, and reports a failure. Returns true if it succeeded.
  template <typename Call>
  bool Must(const std::string& what, Call call);

  const Places places_;
  const std::filesystem::path snapshots_ = places_.home / "snapshots";
  const std::filesystem::path sandboxes_ = places_.home / "sandboxes";
  Shared& shared_;
  const Chaos& chaos_;
  Client client_;
  const Context ctx_ = Context::Background();
  Namespace snapshots_before_;
  Namespace sandboxes_before_;
  Namespace snapshots_now_;
  Namespace sandboxes_now_;
  std::size_t log_read_ = 0;  // Length of the log when the previous round ended.
  // Overlays that cannot be read because a snapshot that they are backed by is missing.
  std::vector<std::string> orphans_;
  int orphans_seen_ = 0;
  std::set<std::string> indexed_;  // Digests in the index at the end of the round.
  struct Ancestry {
    std::uint64_t id = 0;
    std::string parent;
    bool seen = false;  // Whether it exists in this round.
  };
  std::map<std::string, Ancestry> ancestry_;  // By digest.
  std::set<std::string> removed_by_force_;    // Digests.
  // Ids of the snapshots outside the home whose operation was cut off, perhaps before they were
  // indexed. Remove finds those in the snapshots directory even if they are not indexed.
  std::set<std::uint64_t> unindexed_;
  bool unindexed_imports_ = false;
  int rounds_ = 0;
};

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_CHECK_H_
