// SPDX-License-Identifier: Apache-2.0
//
// Prune, of several snapshots of a chain.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fault/operation_parts.h"

namespace msb::test {
namespace {

constexpr const char* kPruned[] = {"first", "second", "third"};

// Makes a chain of snapshots of a sandbox that is then removed, so that nothing needs them.
void MakeChain(FaultHome& home) {
  Client client = home.Qcow2Client();
  CreateSandbox(kCtx, "chain", {WithImage(home / "base.img")}, client).Close();
  for (const char* name : kPruned) {
    Snapshot::Create(kCtx, "chain", {.name = name, .labels = {{"prune", "yes"}}}, client);
  }
  RemoveSandbox(kCtx, "chain", client);
}

void PruneLabelled(FaultHome& /*home*/, Client& client) {
  Snapshot::Prune(kCtx, {.labels = {{"prune", "yes"}}}, client);
}

// Expects the snapshots that are left to have their parents, and the next calls to remove them. A
// call that is done may have left some: it skips what it cannot read, and keeps the parent of a
// snapshot whose row it could not erase.
void ExpectPruned(FaultHome& home, const Outcome& /*outcome*/) {
  bool has_parent = true;
  for (const char* name : kPruned) {
    const bool exists = !DigestAt(home, home.Snapshots() / name).empty();
    EXPECT_TRUE(has_parent || !exists) << name << " has lost its parent";
    has_parent = exists;
  }
  Client client = home.NewClient();
  Expect("to prune the rest", [&] {
    Snapshot::Reindex(kCtx, "", client);
    PruneLabelled(home, client);
  });
  for (const char* name : kPruned) {
    EXPECT_FALSE(std::filesystem::exists(home.Snapshots() / name)) << name;
  }
}

}  // namespace

void AddPruneOperations(std::vector<Operation>& all) {
  all.push_back({.name = "Prune",
                 .prepare = MakeChain,
                 .run = Raw(PruneLabelled),
                 .expect = ExpectPruned,
                 .fault_step = 3});
}

}  // namespace msb::test
