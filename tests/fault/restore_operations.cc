// SPDX-License-Identifier: Apache-2.0
//
// Restore, to snapshots whose files the sandbox has and has not, in both formats.

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "tests/fault/operation_parts.h"
#include "tests/support/sandbox_disk.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

// A restore of a sandbox to a snapshot.
struct Restored {
  std::string sandbox;
  std::string snapshot;
};

// The sandbox's disk before the operation and after it.
struct Disks {
  std::string former;
  std::string restored;
};

std::string ContentOf(FaultHome& home, const std::string& snapshot) {
  Client client = home.NewClient();
  Snapshot::Flatten(kCtx, snapshot, home / "out/content", {}, client);
  std::string content = ReadFile(home / "out/content");
  fs::remove(home / "out/content");
  return content;
}

Operation RestoreOperation(const std::string& name, const Restored& call,
                           const std::function<void(FaultHome&)>& change = {}) {
  const auto disks = std::make_shared<Disks>();
  return {.name = name,
          .prepare =
              [=](FaultHome& home) {
                if (change) change(home);
                *disks = {DiskOf(call.sandbox, home.NewClient()), ContentOf(home, call.snapshot)};
                if (disks->former == disks->restored) throw std::logic_error("equal disks");
              },
          .run = Raw([=](FaultHome&, Client& client) {
            Snapshot::Restore(kCtx, call.sandbox, call.snapshot, client);
          }),
          .expect =
              [=](FaultHome& home, const Outcome& outcome) {
                Client client = home.NewClient();
                Expect("the disk", [&] {
                  const std::string digest =
                      GetSandbox(kCtx, call.sandbox, client).Upper().base_digest;
                  const std::string content = DiskOf(call.sandbox, client);
                  const bool is_restored = content == disks->restored;
                  EXPECT_TRUE(is_restored || content == disks->former);
                  EXPECT_FALSE(outcome.done && !is_restored);
                  EXPECT_FALSE(outcome.refused && is_restored);
                  if (is_restored) {
                    EXPECT_EQ(digest, home.DigestOf(call.snapshot));
                  }
                });
              },
          .touched = {.sandboxes = {call.sandbox}}};
}

// Gives the sandbox "cow" a copy of each file that its disk is backed by, as on a file system
// without hard links.
void CopyBackingFiles(FaultHome& home) {
  Client client = home.NewClient();
  for (const BackingFile& file : client.backend()->Inspect(kCtx, "cow").backing) {
    const fs::path copy = file.disk.path.native() + ".copy";
    fs::copy_file(file.disk.path, copy);
    fs::rename(copy, file.disk.path);
  }
}

}  // namespace

void AddRestoreOperations(std::vector<Operation>& all) {
  all.push_back(RestoreOperation("RestoreQcow2", {"cow", "middle"}));
  all.push_back(RestoreOperation("RestoreQcow2ToAnotherBase", {"cow", "spare"}));
  all.push_back(RestoreOperation("RestoreQcow2FromCopies", {"cow", "middle"}, CopyBackingFiles));
  all.push_back(RestoreOperation("RestoreRaw", {"child", "middle"}));
}

}  // namespace msb::test
