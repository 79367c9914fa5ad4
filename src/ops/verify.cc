// SPDX-License-Identifier: Apache-2.0

#include "src/ops/verify.h"

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "src/artifact/disk_chain.h"
#include "src/artifact/integrity.h"
#include "src/base/throw.h"
#include "src/ops/open.h"

namespace msb::ops {
namespace {

// Checks that the artifact at the path now is the one that was opened there.
void CheckSame(const artifact::Artifact& opened, const artifact::Artifact& now) {
  const std::string& expected = opened.manifest.digest;
  const std::string& found = now.manifest.digest;
  if (expected == found) return;
  if (opened.directory == now.directory) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "the manifest of {} changed since it was opened: expected {}, found {}; restore "
                "it, or open the snapshot again",
                now.path.native(), expected, found);
  }
  base::Throw(ErrorKind::kSnapshotNotFound,
              "the snapshot {} at {} was replaced by {} since it was opened; open it again",
              expected, now.path.native(), found);
}

SnapshotUpperVerifyStatus StatusOf(const std::optional<artifact::Integrity>& found) {
  if (!found) return {.kind = "not_recorded", .algorithm = {}, .digest = {}};
  return {.kind = "verified", .algorithm = found->algorithm, .digest = found->digest};
}

}  // namespace

SnapshotVerifyReport VerifySnapshot(const Context& ctx, ClientState& client,
                                    const artifact::Artifact& artifact) {
  ctx.Check();
  artifact::OpenedArtifact opened = artifact::OpenAt(ctx, artifact.path);
  CheckSame(artifact, opened.artifact);
  if (opened.artifact.manifest.layers.empty()) {
    base::Throw(ErrorKind::kUnsupportedOperation, "{} is a checkpoint, which has no disk to verify",
                artifact.path.native());
  }
  SnapshotVerifyReport report{.digest = artifact.manifest.digest,
                              .path = artifact.path.native(),
                              .upper = {},
                              .backing = {}};
  const artifact::DiskChain chain = OpenDisk(ctx, client, std::move(opened));
  const auto found = artifact::VerifyFiles(ctx, chain.files);
  report.upper = StatusOf(found[0]);
  for (std::size_t i = 1; i < found.size(); ++i) {
    const artifact::DiskFile& file = chain.files[i];
    report.backing.push_back({file.digest, file.disk.path.native(), StatusOf(found[i])});
  }
  return report;
}

}  // namespace msb::ops
