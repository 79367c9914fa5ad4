// SPDX-License-Identifier: Apache-2.0

#include "src/ops/flatten.h"

#include <filesystem>
#include <utility>

#include "src/artifact/flatten.h"
#include "src/artifact/output_directory.h"
#include "src/artifact/output_file.h"
#include "src/handle/lineage.h"
#include "src/ops/open.h"

namespace msb::ops {

void FlattenSnapshot(const Context& ctx, ClientState& client, const std::string& name_or_path,
                     const std::filesystem::path& out_path, const SnapshotFlattenOptions& options) {
  const std::filesystem::path path = artifact::OutputPath(client.home, "disk", out_path);
  artifact::OpenedArtifact snapshot = OpenSnapshot(ctx, client, name_or_path);
  handle::CheckBootable(snapshot.artifact);
  artifact::DiskChain disk = OpenDisk(ctx, client, std::move(snapshot));
  client.SweepBeside(ctx, path);
  artifact::OutputFile out("disk", path);
  artifact::FlattenDisk(ctx, std::move(disk), options.format, out);
}

}  // namespace msb::ops
