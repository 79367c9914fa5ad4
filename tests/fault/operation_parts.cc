// SPDX-License-Identifier: Apache-2.0

#include "tests/fault/operation_parts.h"

#include <gtest/gtest.h>

#include <tuple>
#include <utility>

namespace msb::test {
namespace {

namespace fs = std::filesystem;

Run With(DiskFormat format, std::function<void(FaultHome& home, Client& client)> call) {
  return [format, call = std::move(call)](FaultHome& home, const std::function<void()>& begin) {
    Client client = home.NewClient(format);
    begin();
    call(home, client);
  };
}

}  // namespace

Run Raw(std::function<void(FaultHome& home, Client& client)> call) {
  return With(DiskFormat::kRaw, std::move(call));
}

Run Qcow2(std::function<void(FaultHome& home, Client& client)> call) {
  return With(DiskFormat::kQcow2, std::move(call));
}

std::string DigestAt(FaultHome& home, const fs::path& path) {
  if (!fs::exists(path)) return {};
  Client client = home.NewClient();
  std::string digest;
  Expect("open " + path.native(), [&] {
    const SnapshotArtifact artifact = Snapshot::Open(kCtx, path, client);
    std::ignore = artifact.Verify(kCtx);
    digest = artifact.Digest();
  });
  return digest;
}

void ExpectMade(const Outcome& outcome, const fs::path& path) {
  if (outcome.done) {
    EXPECT_TRUE(fs::exists(path)) << path;
  }
  if (outcome.refused) {
    EXPECT_FALSE(fs::exists(path)) << path;
  }
}

Expectation Makes(std::string snapshot) {
  return [snapshot = std::move(snapshot)](FaultHome& home, const Outcome& outcome) {
    DigestAt(home, home.Snapshots() / snapshot);
    ExpectMade(outcome, home.Snapshots() / snapshot);
  };
}

}  // namespace msb::test
