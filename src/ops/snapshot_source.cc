// SPDX-License-Identifier: Apache-2.0

#include "src/ops/snapshot_source.h"

#include <utility>

#include "src/artifact/disk_chain.h"
#include "src/artifact/store.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/handle/lineage.h"
#include "src/ops/open.h"

namespace msb::ops {
namespace {

// How many times to open a snapshot that keeps being replaced while it is used.
constexpr int kMaxUses = 20;

vmm::SnapshotSource SourceOf(const artifact::Artifact& artifact, const artifact::DiskChain& disk) {
  const artifact::Manifest& manifest = artifact.manifest;
  return {.digest = manifest.digest,
          .artifact = artifact.path,
          .image = manifest.image,
          .upper = disk.files[0].disk,
          .backing = disk.Backing(),
          .size_bytes = manifest.size_bytes};
}

bool MayComeFromReplacement(const Error& error) {
  return error.kind() == ErrorKind::kSnapshotNotFound ||
         error.kind() == ErrorKind::kSnapshotIntegrity ||
         error.kind() == ErrorKind::kSnapshotImageMissing || error.kind() == ErrorKind::kIO;
}

}  // namespace

vmm::SandboxRecord WithSource(const Context& ctx, ClientState& client, const std::string& snapshot,
                              const SourceUser& use) {
  for (int attempt = 1;; ++attempt) {
    artifact::OpenedArtifact opened = OpenSnapshot(ctx, client, snapshot);
    handle::CheckBootable(opened.artifact);
    const artifact::Artifact artifact = opened.artifact;
    artifact::DiskChain disk = OpenDisk(ctx, client, std::move(opened));
    disk.CloseFiles();
    try {
      return use(SourceOf(artifact, disk));
    } catch (const Error& e) {
      if (!MayComeFromReplacement(e) || !disk.IsReplaced()) throw;
      if (attempt == kMaxUses) {
        base::Throw(ErrorKind::kSnapshotNotFound,
                    "snapshot '{}' was removed or replaced while it was copied or linked, {} times "
                    "in a row; try again",
                    base::Quoted(snapshot), attempt);
      }
    }
    ctx.Check();
  }
}

}  // namespace msb::ops
