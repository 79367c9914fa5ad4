// SPDX-License-Identifier: Apache-2.0

#include "src/archive/export_chain.h"

#include "src/artifact/consistency.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"

namespace msb::archive {
namespace {

using artifact::Artifact;
using artifact::Manifest;
using artifact::ManifestForm;
using artifact::OpenedArtifact;
using base::Throw;

void CheckExportable(const Artifact& artifact) {
  const Manifest& manifest = artifact.manifest;
  if (manifest.state_kind != "file") {
    Throw(ErrorKind::kUnsupportedOperation,
          "{} is a checkpoint of a running sandbox; only its runtime can export it",
          artifact.path.native());
  }
  if (manifest.layers.size() != 1) {
    Throw(ErrorKind::kUnsupportedOperation,
          "{} has {}, but only snapshots with one layer are supported; only its runtime can export "
          "it",
          artifact.path.native(), base::Count(manifest.layers.size(), "disk layer"));
  }
}

// Returns a descriptor for a 0.7 snapshot. This changes the identity of the snapshot, so the parent
// is named, by its new identity, only if the archive has it too.
Manifest AsDescriptor(const OpenedArtifact& opened, const OutgoingSnapshot* parent) {
  const Artifact& artifact = opened.artifact;
  const Manifest& layered = artifact.manifest;
  if (!layered.required.empty()) {
    Throw(ErrorKind::kUnsupportedOperation,
          "{} requires '{}', which a descriptor cannot express; only its runtime can export it",
          artifact.path.native(), layered.required.front());
  }
  Manifest manifest = layered;
  manifest.form = ManifestForm::kDescriptor;
  manifest.snapshot_id.clear();
  manifest.parent.reset();
  if (parent != nullptr) manifest.parent = parent->manifest.digest;
  artifact::Layer& layer = manifest.layers.at(0);
  layer.file = disk::UpperFileName(layer.format);
  layer.file_bytes = opened.layers.at(0).stamp.size;
  manifest.size_bytes = *layer.file_bytes;
  artifact::SetConsistency(manifest, artifact::ConsistencyOf(layered));
  return manifest;
}

}  // namespace

OutgoingChain PrepareChain(const std::vector<OpenedArtifact>& chain) {
  const ManifestForm form = chain.back().artifact.manifest.form;
  OutgoingChain outgoing;
  outgoing.layout = form == ManifestForm::kManifest ? Layout::kLegacy : Layout::kInventory;
  for (const OpenedArtifact& opened : chain) {
    const Artifact& artifact = opened.artifact;
    CheckExportable(artifact);
    if (artifact.manifest.form != form) {
      Throw(ErrorKind::kUnsupportedOperation,
            "{} and {} have manifests of different generations, which one archive cannot hold; "
            "export them separately",
            artifact.path.native(), chain.back().artifact.path.native());
    }
    OutgoingSnapshot snapshot{.source = &opened};
    if (form == ManifestForm::kLayered) {
      snapshot.manifest =
          AsDescriptor(opened, outgoing.snapshots.empty() ? nullptr : &outgoing.snapshots.back());
    } else {
      snapshot.manifest = artifact.manifest;
    }
    snapshot.bytes = EncodeManifest(snapshot.manifest);
    snapshot.directory =
        DirectoryOf(outgoing.layout, base::Digest::Require(snapshot.manifest.digest));
    outgoing.snapshots.push_back(std::move(snapshot));
  }
  return outgoing;
}

}  // namespace msb::archive
