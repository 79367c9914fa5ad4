// SPDX-License-Identifier: Apache-2.0

#include "src/ops/open.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "src/handle/finder.h"
#include "src/handle/lineage.h"
#include "src/handle/row_paths.h"

namespace msb::ops {

artifact::OpenedArtifact OpenSnapshot(const Context& ctx, ClientState& client,
                                      const std::string& path_or_name) {
  ctx.Check();
  const std::filesystem::path& snapshots_dir = client.home.snapshots_dir();
  artifact::OpenedArtifact opened =
      artifact::IsPath(path_or_name)
          ? artifact::OpenAt(ctx, handle::PathOf(client.home, path_or_name))
          : artifact::OpenNamed(ctx, snapshots_dir, path_or_name);
  const artifact::Artifact& artifact = opened.artifact;
  const std::filesystem::path& place =
      artifact.member ? artifact.member->group_path : artifact.path;
  // A symbolic link is another name of a snapshot, which has a row of its own.
  std::error_code error;
  if (place.parent_path() == snapshots_dir && !std::filesystem::is_symlink(place, error)) {
    client.catalog.Record(ctx, artifact);
  }
  return opened;
}

artifact::DiskChain OpenDisk(const Context& ctx, ClientState& client,
                             artifact::OpenedArtifact snapshot) {
  handle::SnapshotFinder finder(ctx, client.catalog);
  return handle::OpenDisk(finder, std::move(snapshot));
}

}  // namespace msb::ops
