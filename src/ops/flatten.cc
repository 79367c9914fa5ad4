#include "src/ops/flatten.h"

#include <filesystem>
#include <utility>

#include "src/artifact/flatten.h"
#include "src/artifact/output_directory.h"
#include "src/base/file.h"
#include "src/base/new_directory.h"
#include "src/handle/lineage.h"
#include "src/ops/open.h"

namespace msb::ops {

void FlattenSnapshot(const Context& ctx, ClientState& client, const std::string& name_or_path,
                     const std::filesystem::path& out_path, const SnapshotFlattenOptions& options) {
  artifact::OpenedArtifact snapshot = OpenSnapshot(ctx, client, name_or_path);
  handle::CheckBootable(snapshot.artifact);
  artifact::DiskChain disk = OpenDisk(ctx, client, std::move(snapshot));
  const std::filesystem::path out = base::AbsolutePath(out_path.native());
  client.SweepBeside(ctx, out);
  base::NewDirectory directory = artifact::MakeOutputDirectory("disk", out);
  artifact::CheckOutputFile("disk", out);
  artifact::FlattenDisk(ctx, std::move(disk), options.format, out);
  directory.Keep();
}

}  // namespace msb::ops
