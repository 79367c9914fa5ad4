// SPDX-License-Identifier: Apache-2.0

#include "src/ops/export.h"

#include <optional>
#include <utility>

#include "src/archive/byte_sink.h"
#include "src/archive/export.h"
#include "src/artifact/output_directory.h"
#include "src/base/digest.h"
#include "src/base/output_stream.h"
#include "src/handle/export_lineage.h"
#include "src/handle/finder.h"
#include "src/ops/open.h"

namespace msb::ops {
namespace {

// Returns the digest of the snapshot that SnapshotExportOptions::since names, or nullopt if since
// is empty. If since is a digest, the snapshot need not exist here.
std::optional<std::string> SinceDigest(const Context& ctx, ClientState& client,
                                       const std::string& since) {
  if (since.empty()) return std::nullopt;
  if (base::IsDigest(since, "sha256")) return since;
  return OpenSnapshot(ctx, client, since).artifact.manifest.digest;
}

}  // namespace

void ExportSnapshot(const Context& ctx, ClientState& client, const std::string& name_or_path,
                    const std::filesystem::path& out_path, const SnapshotExportOptions& options) {
  archive::CheckLevel(options.level);
  archive::ExportSpec spec{.chain = {},
                           .cache_dir = client.home.cache_dir(),
                           .out = artifact::OutputPath(client.home, "archive", out_path),
                           .with_parents = options.with_parents,
                           .with_image = options.with_image,
                           .plain_tar = options.plain_tar,
                           .sparse = options.sparse,
                           .level = options.level,
                           .threads = options.threads};
  handle::SnapshotFinder finder(ctx, client.catalog);
  handle::ExportLineage lineage =
      handle::LineageForExport(ctx, finder, OpenSnapshot(ctx, client, name_or_path),
                               options.with_parents, SinceDigest(ctx, client, options.since));
  spec.chain = std::move(lineage.snapshots);
  if (lineage.needed) spec.needed.push_back(*lineage.needed);
  if (auto stream = base::OutputStream::Open(ctx, spec.out)) {
    archive::ExportArchive(ctx, spec, *stream);
    return;
  }
  client.SweepBeside(ctx, spec.out);
  archive::ExportArchive(ctx, spec);
}

}  // namespace msb::ops
