// SPDX-License-Identifier: Apache-2.0
//
// Operations on a sandbox whose seal was interrupted, and seals that write the complete disk.

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "tests/fault/operation_parts.h"
#include "tests/support/call_interceptor.h"

namespace msb::test {
namespace {

// The system call before which the process that seals "cow" as snapshot "cut" is killed.
struct Cut {
  std::string name;
  std::string_view call;  // The start of the call's description.
  std::string_view path;  // A part of the call's description.
  int count = 1;          // Which of the matching calls, counted from 1.
  bool publishes = false;
};

const Cut kBeforeRecord = {"BeforeRecord", "rename", "/sandboxes/cow/sandbox.json"};
const Cut kBeforePublish = {"BeforePublish", "rename", "/snapshots/cut"};
const Cut kBeforeForward = {"BeforeForward", "rename", "/sandboxes/cow/sandbox.json", 2, true};
const Cut kBeforeSweep = {"BeforeSweep", "unlink", "/sandboxes/cow/upper", 1, true};

// A sample is enough: after the recovery, Create makes the calls that the operation "Seal" tries
// one by one.
constexpr int kFaultStep = 5;

void CutSeal(FaultHome& home, const Cut& cut) {
  int count = 0;
  const auto decide = [&](const InterceptedCall& call) {
    if (!MayChange(call)) return 0;
    const std::string text = call.Describe();
    const bool matches = text.starts_with(cut.call) && text.find(cut.path) != std::string::npos;
    return matches && ++count == cut.count ? kKillChild : 0;
  };
  const auto seal = [&](const std::function<void()>& begin) {
    Client client = home.Qcow2Client();
    begin();
    Snapshot::Create(kCtx, "cow", {.name = "cut"}, client);
    return std::string();
  };
  if (!RunIntercepted(FileCalls(), decide, seal).killed) {
    throw std::runtime_error("the seal was not cut off " + cut.name);
  }
}

// Removes the parent of the next snapshot of "cow", which will therefore be a complete disk.
void RemoveParent(FaultHome& home) {
  Client client = home.NewClient();
  Snapshot::Remove(kCtx, "middle", true, client);
}

// Expects the interrupted snapshot to exist exactly if it was published, whatever has happened to
// the sandbox.
void ExpectCut(FaultHome& home, const Cut& cut) {
  EXPECT_EQ(!DigestAt(home, home.Snapshots() / "cut").empty(), cut.publishes);
}

void CreateNew(FaultHome& /*home*/, Client& client) {
  Snapshot::Create(kCtx, "cow", {.name = "new"}, client);
}

void AddRecoveries(std::vector<Operation>& all, const Cut& cut) {
  const auto prepare = [=](FaultHome& home) { CutSeal(home, cut); };
  all.push_back({.name = "CreateAfterCut" + cut.name,
                 .prepare = prepare,
                 .run = Qcow2(CreateNew),
                 .expect =
                     [=](FaultHome& home, const Outcome& outcome) {
                       ExpectCut(home, cut);
                       Makes("new")(home, outcome);
                     },
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists},
                 .fault_step = kFaultStep});
  all.push_back(
      {.name = "StartAfterCut" + cut.name,
       .prepare = prepare,
       .run = Qcow2([](FaultHome&, Client& client) { StartSandbox(kCtx, "cow", client).Close(); }),
       .expect = [=](FaultHome& home, const Outcome&) { ExpectCut(home, cut); }});
  all.push_back({.name = "RemoveSandboxAfterCut" + cut.name,
                 .prepare = prepare,
                 .run = Raw([](FaultHome&, Client& client) { RemoveSandbox(kCtx, "cow", client); }),
                 .expect =
                     [=](FaultHome& home, const Outcome& outcome) {
                       ExpectCut(home, cut);
                       if (outcome.done) {
                         EXPECT_FALSE(std::filesystem::exists(home.Sandboxes() / "cow"));
                       }
                     },
                 .touched = {.sandboxes = {"cow"}},
                 .again_throws = {ErrorKind::kSandboxNotFound}});
}

void AddWholeDiskSeals(std::vector<Operation>& all) {
  const FaultHome::Touched removed = {.snapshots = {"middle"}};
  all.push_back({.name = "SealOfWholeDisk",
                 .prepare = RemoveParent,
                 .run = Qcow2(CreateNew),
                 .expect = Makes("new"),
                 .touched = removed,
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  for (const Cut& cut : {kBeforePublish, kBeforeForward}) {
    all.push_back({.name = "CreateAfterCutOfWholeDisk" + cut.name,
                   .prepare =
                       [=](FaultHome& home) {
                         RemoveParent(home);
                         CutSeal(home, cut);
                       },
                   .run = Qcow2(CreateNew),
                   .expect =
                       [=](FaultHome& home, const Outcome& outcome) {
                         ExpectCut(home, cut);
                         Makes("new")(home, outcome);
                       },
                   .touched = removed,
                   .again_throws = {ErrorKind::kSnapshotAlreadyExists},
                   .fault_step = kFaultStep});
  }
}

}  // namespace

void AddSealOperations(std::vector<Operation>& all) {
  for (const Cut& cut : {kBeforeRecord, kBeforePublish, kBeforeForward, kBeforeSweep}) {
    AddRecoveries(all, cut);
  }
  AddWholeDiskSeals(all);
}

}  // namespace msb::test
