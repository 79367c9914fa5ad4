// SPDX-License-Identifier: Apache-2.0
//
// How do I label snapshots, and find them again? By name, by digest, and by label.

#include <exception>
#include <filesystem>
#include <iostream>
#include <string>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

std::string NameOf(const msb::SnapshotArtifact& snapshot) {
  return std::filesystem::path(snapshot.Path()).filename();
}

void Run() {
  const example::TemporaryHome home;
  const auto ctx = msb::Context::Background();
  const msb::Client client({.home = home.Path(), .backend = "local"});
  msb::CreateSandbox(ctx, "baseline", {msb::WithImage(home.MakeImage())}, client).Close();

  // Labels are part of the manifest, so the digest covers them, and archives contain them.
  for (const std::string stage : {"deps", "tests"}) {
    msb::Snapshot::Create(ctx, "baseline",
                          {.name = "after-" + stage, .labels = {{"stage", stage}, {"team", "web"}}},
                          client);
  }

  // A name or a digest is looked up in the index.
  const msb::SnapshotHandle by_name = msb::Snapshot::Get(ctx, "after-deps", client);
  const msb::SnapshotHandle by_digest = msb::Snapshot::Get(ctx, by_name.Digest(), client);
  std::cout << "by name and by digest: " << by_digest.Name().value_or("-") << "\n";

  // The index has no labels, so a label is looked up in the artifacts. "" means the client's
  // snapshots directory.
  for (const msb::SnapshotArtifact& snapshot : msb::Snapshot::ListDir(ctx, "", client)) {
    const auto labels = snapshot.Labels();
    const auto stage = labels.find("stage");
    if (stage == labels.end() || stage->second != "tests") continue;
    std::cout << "by label: " << NameOf(snapshot) << "\n";
    for (const auto& [key, value] : labels) std::cout << "  " << key << "=" << value << "\n";
  }

  try {
    static_cast<void>(msb::Snapshot::Get(ctx, "after-lunch", client));
  } catch (const msb::Error& e) {
    if (e.kind() != msb::ErrorKind::kSnapshotNotFound) throw;
    std::cout << "there is no snapshot 'after-lunch'\n";
  }
}

}  // namespace

int main(int argc, char** /*argv*/) {
  if (argc != 1) {
    std::cerr << "usage: labels\n";
    return 2;
  }
  try {
    Run();
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "labels: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "labels: " << e.what() << "\n";
  }
  return 1;
}
