// SPDX-License-Identifier: Apache-2.0

#include "src/ops/squash.h"

#include <utility>

#include "src/artifact/consistency.h"
#include "src/artifact/create.h"
#include "src/artifact/flatten.h"
#include "src/artifact/manifest.h"
#include "src/artifact/output_directory.h"
#include "src/disk/disk_names.h"
#include "src/handle/lineage.h"
#include "src/ops/new_snapshot.h"
#include "src/ops/open.h"

namespace msb::ops {
namespace {

// Returns the manifest of a raw copy of a snapshot's complete disk.
artifact::Manifest SquashedManifest(const artifact::Manifest& source, artifact::ManifestForm form,
                                    const SnapshotCreateOptions& options) {
  artifact::Manifest manifest = NewManifest(form, options);
  manifest.image = source.image;
  manifest.source_sandbox = source.source_sandbox;
  manifest.fstype = source.fstype;
  artifact::SetConsistency(manifest, artifact::ConsistencyOf(source));
  manifest.layers = {{.file = disk::UpperFileName(DiskFormat::kRaw)}};
  return manifest;
}

}  // namespace

artifact::Artifact SquashSnapshot(const Context& ctx, ClientState& client,
                                  const std::string& name_or_path,
                                  const SnapshotCreateOptions& options) {
  artifact::NewArtifact spec{.destination = DestinationOf(options, client)};
  artifact::OpenedArtifact source = OpenSnapshot(ctx, client, name_or_path);
  handle::CheckBootable(source.artifact);
  spec.manifest = SquashedManifest(source.artifact.manifest, FormFor(ctx, client), options);
  ApplyOptions(spec.manifest.form, options, spec);
  ProtectReplaced(ctx, client, spec);
  artifact::DiskChain chain = OpenDisk(ctx, client, std::move(source));
  client.SweepBeside(ctx, spec.destination);
  artifact::CheckOutputDirectory(spec.destination);
  artifact::Artifact artifact = artifact::CreateArtifact(
      ctx, std::move(spec), [&](artifact::NewArtifact& described, int stage) {
        artifact::SquashDisk(ctx, std::move(chain), described, stage);
      });
  // From here on the snapshot exists, so neither a cancellation nor the index may make this fail.
  client.catalog.RecordPublished(ctx, artifact);
  return artifact;
}

}  // namespace msb::ops
