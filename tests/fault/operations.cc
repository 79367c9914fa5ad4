// SPDX-License-Identifier: Apache-2.0

#include "tests/fault/operations.h"

#include <gtest/gtest.h>

#include <tuple>
#include <utility>

#include "src/archive/image_files.h"
#include "tests/fault/operation_parts.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

// Expects a snapshot of "cow" whose parent is the previous snapshot of "cow", "middle".
void ExpectSealed(FaultHome& home, const fs::path& path, const Outcome& outcome) {
  ExpectMade(outcome, path);
  if (DigestAt(home, path).empty()) return;
  Client client = home.NewClient();
  Expect("the parent",
         [&] { EXPECT_EQ(Snapshot::Open(kCtx, path, client).Parent(), home.DigestOf("middle")); });
}

auto MakesSandbox(std::string name) {
  return [name = std::move(name)](FaultHome& home, const Outcome& outcome) {
    ExpectMade(outcome, home.Sandboxes() / name);
  };
}

// Expects the old snapshot to exist until the new one replaces it.
auto Replaces(std::string snapshot) {
  return [snapshot = std::move(snapshot)](FaultHome& home, const Outcome& outcome) {
    const std::string now = DigestAt(home, home.Snapshots() / snapshot);
    EXPECT_NE(now, "");
    if (outcome.done) {
      EXPECT_NE(now, home.DigestOf(snapshot));
    }
    if (outcome.refused) {
      EXPECT_EQ(now, home.DigestOf(snapshot));
    }
  };
}

// Removes the sandbox "cow" after it was sealed, and then each snapshot that nothing depends on.
// Expects the disk of every snapshot that is left to be complete, even if it has no row. Before the
// removal, nothing may open the new snapshot, since this would add the row.
void ExpectParentsAreKept(FaultHome& home, const Outcome& outcome) {
  ExpectMade(outcome, home.Snapshots() / "new");
  Client client = home.NewClient();
  Expect("the snapshots without the sandbox", [&] {
    RemoveSandbox(kCtx, "cow", client);
    for (const char* parent : {"middle", "old"}) {
      try {
        Snapshot::Remove(kCtx, parent, false, client);
      } catch (const Error& e) {
        if (e.kind() != ErrorKind::kSnapshotHasChildren) throw;
      }
    }
    for (const SnapshotArtifact& artifact : Snapshot::ListDir(kCtx, "", client)) {
      Snapshot::Flatten(kCtx, artifact.Path(), home / "out/flat", {}, client);
    }
  });
}

auto Removes(std::string snapshot) {
  return [snapshot = std::move(snapshot)](FaultHome& home, const Outcome& outcome) {
    const std::string now = DigestAt(home, home.Snapshots() / snapshot);
    if (outcome.done) {
      EXPECT_EQ(now, "");
    }
    EXPECT_TRUE(now.empty() || now == home.DigestOf(snapshot)) << now;
  };
}

// Expects the caller's file to exist: a new one if the operation was done, the old one if it
// failed.
auto Writes(std::string name) {
  return [name = std::move(name)](FaultHome& home, const Outcome& outcome) {
    const bool is_old = ReadFile(home / name) == "old";
    if (outcome.done) {
      EXPECT_FALSE(is_old);
    }
    if (outcome.refused) {
      EXPECT_TRUE(is_old);
    }
  };
}

void WriteOldFile(FaultHome& home) { WriteFile(home / "out/file", "old"); }

void ExpectNothing(FaultHome& /*home*/, const Outcome& /*outcome*/) {}

void ExpectImported(FaultHome& home, const Outcome& outcome) {
  const std::set<std::string> received = {home.DigestOf("received"),
                                          home.DigestOf("received-head")};
  std::set<std::string> digests;
  Client client = home.NewClient();
  for (const SnapshotArtifact& artifact : Snapshot::ListDir(kCtx, "", client)) {
    EXPECT_EQ(artifact.Verify(kCtx).upper.kind, "verified");
    digests.insert(artifact.Digest());
    if (!received.contains(artifact.Digest())) continue;
    Expect("the image of " + artifact.Path(), [&] {
      archive::FilesOfImage(home / "home/cache",
                            {artifact.ImageRef(), artifact.ImageManifestDigest()});
    });
  }
  const bool head = digests.contains(home.DigestOf("received-head"));
  const bool parent = digests.contains(home.DigestOf("received"));
  if (head) {
    EXPECT_TRUE(parent);
  }
  if (outcome.done) {
    EXPECT_TRUE(head);
  }
  // Other calls may already use what is visible, so a failure leaves it.
  if (outcome.refused && head) {
    EXPECT_TRUE(outcome.published);
  }
}

void CreateOperations(std::vector<Operation>& all) {
  all.push_back({.name = "CreateRaw",
                 .run = Raw([](FaultHome&, Client& client) {
                   Snapshot::Create(kCtx, "raw", {.name = "new"}, client);
                 }),
                 .expect = Makes("new"),
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "CreateRawWithIntegrity",
                 .run = Raw([](FaultHome&, Client& client) {
                   Snapshot::Create(kCtx, "child", {.name = "new", .record_integrity = true},
                                    client);
                 }),
                 .expect = Makes("new"),
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "CreateManifest",
                 .run =
                     [](FaultHome& home, const std::function<void()>& begin) {
                       Client client({.home = home / "home",
                                      .backend = "local",
                                      .generation = Generation::kManifest});
                       begin();
                       Snapshot::Create(kCtx, "raw", {.name = "new"}, client);
                     },
                 .expect = Makes("new"),
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "CreateByForce",
                 .run = Raw([](FaultHome&, Client& client) {
                   Snapshot::Create(kCtx, "child",
                                    {.name = "spare", .force = true, .record_integrity = true},
                                    client);
                 }),
                 .expect = Replaces("spare"),
                 .touched = {.snapshots = {"spare"}}});
  all.push_back({.name = "CreateAtPath",
                 .run = Raw([](FaultHome& home, Client& client) {
                   Snapshot::Create(kCtx, "raw", {.path = home / "out/new"}, client);
                 }),
                 .expect =
                     [](FaultHome& home, const Outcome& outcome) {
                       DigestAt(home, home / "out/new");
                       ExpectMade(outcome, home / "out/new");
                     },
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "CreateAtNewPath",
                 .run = Raw([](FaultHome& home, Client& client) {
                   Snapshot::Create(kCtx, "raw", {.path = home / "out/a/b/new"}, client);
                 }),
                 .expect =
                     [](FaultHome& home, const Outcome& outcome) {
                       DigestAt(home, home / "out/a/b/new");
                       ExpectMade(outcome, home / "out/a/b/new");
                       ExpectMade(outcome, home / "out/a");
                     },
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "Seal",
                 .run = Qcow2([](FaultHome&, Client& client) {
                   Snapshot::Create(kCtx, "cow", {.name = "new", .record_integrity = true}, client);
                 }),
                 .expect =
                     [](FaultHome& home, const Outcome& outcome) {
                       ExpectSealed(home, home.Snapshots() / "new", outcome);
                     },
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "SealByForce",
                 .run = Qcow2([](FaultHome&, Client& client) {
                   Snapshot::Create(kCtx, "cow", {.name = "spare", .force = true}, client);
                 }),
                 .expect = Replaces("spare"),
                 .touched = {.snapshots = {"spare"}}});
  all.push_back({.name = "SealReplacesItsBacking",
                 .run = Qcow2([](FaultHome&, Client& client) {
                   Snapshot::Create(kCtx, "cow", {.name = "middle", .force = true}, client);
                 }),
                 .expect = Replaces("middle"),
                 .touched = {.snapshots = {"middle"}}});
  all.push_back({.name = "SealAndRemoveParents",
                 .run = Qcow2([](FaultHome&, Client& client) {
                   Snapshot::Create(kCtx, "cow", {.name = "new"}, client);
                 }),
                 .expect = ExpectParentsAreKept,
                 .touched = {.snapshots = {"new", "middle"}, .sandboxes = {"cow"}},
                 .again_throws = {ErrorKind::kSandboxNotFound}});
  all.push_back(
      {.name = "SealAtPath",
       .run = Qcow2([](FaultHome& home, Client& client) {
         Snapshot::Create(kCtx, "cow", {.path = home / "out/new"}, client);
       }),
       .expect = [](FaultHome& home,
                    const Outcome& outcome) { ExpectSealed(home, home / "out/new", outcome); },
       .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "Squash",
                 .run = Raw([](FaultHome&, Client& client) {
                   Snapshot::Squash(kCtx, "middle", {.name = "new", .record_integrity = true},
                                    client);
                 }),
                 .expect = Makes("new"),
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "SquashByForce",
                 .run = Raw([](FaultHome&, Client& client) {
                   Snapshot::Squash(kCtx, "middle", {.name = "spare", .force = true}, client);
                 }),
                 .expect = Replaces("spare"),
                 .touched = {.snapshots = {"spare"}}});
}

void RemoveOperations(std::vector<Operation>& all) {
  all.push_back({.name = "Remove",
                 .run = Raw([](FaultHome&, Client& client) {
                   Snapshot::Remove(kCtx, "spare", false, client);
                 }),
                 .expect = Removes("spare"),
                 .touched = {.snapshots = {"spare"}},
                 .again_throws = {ErrorKind::kSnapshotNotFound}});
  all.push_back(
      {.name = "RemoveByForce",
       .run = Raw([](FaultHome&, Client& client) { Snapshot::Remove(kCtx, "old", true, client); }),
       .expect = Removes("old"),
       .touched = {.snapshots = {"old", "middle"}, .sandboxes = {"cow"}},
       .again_throws = {ErrorKind::kSnapshotNotFound}});
  all.push_back({.name = "RemoveByDigest",
                 .run = Raw([](FaultHome& home, Client& client) {
                   Snapshot::Remove(kCtx, home.DigestOf("young"), false, client);
                 }),
                 .expect = Removes("young"),
                 .touched = {.snapshots = {"young"}},
                 .again_throws = {ErrorKind::kSnapshotNotFound}});
}

void ArchiveOperations(std::vector<Operation>& all) {
  all.push_back({.name = "Import",
                 .run = Raw([](FaultHome& home, Client& client) {
                   Snapshot::Import(kCtx, home / "archive.tar.zst", "", client);
                 }),
                 .expect = ExpectImported,
                 .again_throws = {ErrorKind::kSnapshotAlreadyExists}});
  all.push_back({.name = "Export",
                 .prepare = WriteOldFile,
                 .run = Raw([](FaultHome& home, Client& client) {
                   Snapshot::Export(kCtx, "middle", home / "out/file",
                                    {.with_parents = true, .with_image = true, .threads = 1},
                                    client);
                 }),
                 .expect = Writes("out/file")});
  all.push_back({.name = "FlattenRaw",
                 .prepare = WriteOldFile,
                 .run = Raw([](FaultHome& home, Client& client) {
                   Snapshot::Flatten(kCtx, "middle", home / "out/file", {}, client);
                 }),
                 .expect = Writes("out/file")});
  all.push_back({.name = "FlattenQcow2",
                 .prepare = WriteOldFile,
                 .run = Raw([](FaultHome& home, Client& client) {
                   Snapshot::Flatten(kCtx, "middle", home / "out/file",
                                     {.format = DiskFormat::kQcow2}, client);
                 }),
                 .expect = Writes("out/file")});
}

// Expects all four snapshots to be listed: the index retries an artifact that it could not read.
void ExpectAllIndexed(FaultHome& home, const Outcome& /*outcome*/) {
  Client client = home.NewClient();
  Expect("List", [&] { EXPECT_EQ(Snapshot::List(kCtx, client).size(), 4U); });
}

void IndexOperations(std::vector<Operation>& all) {
  all.push_back(
      {.name = "Reindex",
       .run = Raw([](FaultHome&, Client& client) { Snapshot::Reindex(kCtx, "", client); }),
       .expect = ExpectAllIndexed});
  all.push_back(
      {.name = "FirstList",
       .prepare = [](FaultHome& home) { fs::remove_all(home / "home/db"); },
       .run = Raw([](FaultHome&, Client& client) { std::ignore = Snapshot::List(kCtx, client); }),
       .expect = ExpectAllIndexed});
  all.push_back({.name = "OpenMovedArtifact",
                 .prepare =
                     [](FaultHome& home) {
                       fs::rename(home.Snapshots() / "spare", home.Snapshots() / "moved");
                     },
                 .run = Raw([](FaultHome&, Client& client) {
                   std::ignore = Snapshot::Open(kCtx, "moved", client);
                 }),
                 .expect =
                     [](FaultHome& home, const Outcome&) {
                       EXPECT_EQ(DigestAt(home, home.Snapshots() / "moved"),
                                 home.DigestOf("spare"));
                     },
                 .touched = {.snapshots = {"spare"}}});
}

// Ignores errors of Close: the sandbox has been created by then.
void CreateAndClose(const std::string& name, const std::vector<SandboxOption>& options,
                    Client& client) {
  Sandbox sandbox = CreateSandbox(kCtx, name, options, client);
  try {
    sandbox.Close();
  } catch (const Error&) {
  }
}

void SandboxOperations(std::vector<Operation>& all) {
  const auto create = [](std::string name, std::vector<SandboxOption> options) {
    return [=](FaultHome&, Client& client) { CreateAndClose(name, options, client); };
  };
  const auto from_image = [](FaultHome& home, Client& client) {
    CreateAndClose("new", {WithImage(home / "base.img")}, client);
  };
  const auto from_new_image = [](FaultHome& home, Client& client) {
    CreateAndClose("new", {WithImage(home / "new.img")}, client);
  };
  const auto add_image = [](FaultHome& home) { WriteFile(home / "new.img", Noise(65'536, 9)); };
  const std::set<ErrorKind> exists = {ErrorKind::kSandboxAlreadyExists};
  const FaultHome::Touched made = {.sandboxes = {"new"}};
  all.push_back({.name = "CreateSandboxFromImageRaw",
                 .run = Raw(from_image),
                 .expect = MakesSandbox("new"),
                 .touched = made,
                 .again_throws = exists});
  all.push_back({.name = "CreateSandboxFromImageQcow2",
                 .run = Qcow2(from_image),
                 .expect = MakesSandbox("new"),
                 .touched = made,
                 .again_throws = exists});
  all.push_back({.name = "CreateSandboxFromNewImage",
                 .prepare = add_image,
                 .run = Qcow2(from_new_image),
                 .expect = MakesSandbox("new"),
                 .touched = made,
                 .again_throws = exists});
  all.push_back({.name = "CreateSandboxFromSnapshotRaw",
                 .run = Raw(create("new", {WithSnapshot("middle")})),
                 .expect = MakesSandbox("new"),
                 .touched = made,
                 .again_throws = exists});
  all.push_back({.name = "CreateSandboxFromSnapshotQcow2",
                 .run = Qcow2(create("new", {WithSnapshot("middle")})),
                 .expect = MakesSandbox("new"),
                 .touched = made,
                 .again_throws = exists});
  all.push_back({.name = "ReplaceSandbox",
                 .run = Qcow2(create("cow", {WithSnapshot("middle"), WithReplace()})),
                 .expect = ExpectNothing,
                 .touched = {.sandboxes = {"cow"}}});
  all.push_back({.name = "ReplaceRunningSandbox",
                 .run = Raw(create("busy", {WithSnapshot("old"), WithReplace()})),
                 .expect = ExpectNothing,
                 .touched = {.sandboxes = {"busy"}}});
  all.push_back({.name = "Start",
                 .run = Qcow2([](FaultHome&, Client& client) {
                   GetSandbox(kCtx, "cow", client).Start(kCtx).Detach(kCtx);
                 }),
                 .expect = ExpectNothing,
                 .touched = {.sandboxes = {"cow"}},
                 .again_throws = {ErrorKind::kSandboxStillRunning}});
  all.push_back(
      {.name = "Stop",
       .run = Raw([](FaultHome&, Client& client) { GetSandbox(kCtx, "busy", client).Stop(kCtx); }),
       .expect = ExpectNothing,
       .touched = {.sandboxes = {"busy"}}});
  all.push_back(
      {.name = "Kill",
       .run = Raw([](FaultHome&, Client& client) { GetSandbox(kCtx, "busy", client).Kill(kCtx); }),
       .expect = ExpectNothing,
       .touched = {.sandboxes = {"busy"}}});
  all.push_back({.name = "RemoveSandbox",
                 .run = Raw([](FaultHome&, Client& client) { RemoveSandbox(kCtx, "cow", client); }),
                 .expect =
                     [](FaultHome& home, const Outcome& outcome) {
                       if (outcome.done) {
                         EXPECT_FALSE(fs::exists(home.Sandboxes() / "cow"));
                       }
                     },
                 .touched = {.sandboxes = {"cow"}},
                 .again_throws = {ErrorKind::kSandboxNotFound}});
}

}  // namespace

const std::vector<Operation>& Operations() {
  static const std::vector<Operation> operations = [] {
    std::vector<Operation> all;
    CreateOperations(all);
    AddSealOperations(all);
    RemoveOperations(all);
    ArchiveOperations(all);
    IndexOperations(all);
    SandboxOperations(all);
    AddRestoreOperations(all);
    AddPruneOperations(all);
    return all;
  }();
  return operations;
}

}  // namespace msb::test
