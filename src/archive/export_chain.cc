#include "src/archive/export_chain.h"

#include "src/base/throw.h"

namespace msb::archive {
namespace {

using artifact::Artifact;
using artifact::Manifest;
using artifact::ManifestForm;
using base::Throw;

void CheckExportable(const Artifact& artifact) {
  const Manifest& manifest = artifact.manifest;
  if (manifest.state_kind != "file") {
    Throw(ErrorKind::kUnsupportedOperation,
          "{} is a checkpoint of a running sandbox; only its runtime can export it",
          artifact.path.native());
  }
  if (manifest.layers.size() != 1) {
    Throw(ErrorKind::kUnsupportedOperation, "{} has {} disk layers; only its runtime can export it",
          artifact.path.native(), manifest.layers.size());
  }
}

// The snapshot as the descriptor generation would have described it. Its identity is another one
// then, so its parent is named only if that goes out with it or before it: by its new identity.
Manifest AsDescriptor(const Artifact& artifact, const OutgoingSnapshot* parent) {
  const Manifest& layered = artifact.manifest;
  if (!layered.required.empty()) {
    Throw(ErrorKind::kUnsupportedOperation, "{} requires '{}', which no descriptor can say",
          artifact.path.native(), layered.required.front());
  }
  Manifest manifest = layered;
  manifest.form = ManifestForm::kDescriptor;
  manifest.snapshot_id.clear();
  manifest.parent.reset();
  if (parent != nullptr) manifest.parent = parent->manifest.digest;
  artifact::Layer& layer = manifest.layers.at(0);
  layer.file = artifact::UpperFileName(layer.format);
  const base::UniqueFd fd = artifact::OpenLayer(artifact, layered.layers.at(0));
  layer.file_bytes = base::StampOf(fd.get()).size;
  manifest.size_bytes = *layer.file_bytes;
  return manifest;
}

std::string DirectoryFor(Layout layout, const std::string& digest) {
  const std::string hex = digest.substr(digest.find(':') + 1);
  return layout == Layout::kLegacy ? "sha256-" + hex.substr(0, 16) : hex;
}

}  // namespace

OutgoingChain PrepareChain(const std::vector<Artifact>& chain) {
  const ManifestForm form = chain.back().manifest.form;
  OutgoingChain outgoing;
  outgoing.layout = form == ManifestForm::kManifest ? Layout::kLegacy : Layout::kInventory;
  for (const Artifact& artifact : chain) {
    CheckExportable(artifact);
    if (artifact.manifest.form != form) {
      Throw(ErrorKind::kUnsupportedOperation,
            "{} is of another generation than {}: no archive carries both; export them apart",
            artifact.path.native(), chain.back().path.native());
    }
    OutgoingSnapshot snapshot{.source = &artifact};
    if (form == ManifestForm::kLayered) {
      snapshot.manifest =
          AsDescriptor(artifact, outgoing.snapshots.empty() ? nullptr : &outgoing.snapshots.back());
    } else {
      snapshot.manifest = artifact.manifest;
    }
    snapshot.bytes = SealManifest(snapshot.manifest);
    snapshot.directory = DirectoryFor(outgoing.layout, snapshot.manifest.digest);
    outgoing.snapshots.push_back(std::move(snapshot));
  }
  return outgoing;
}

}  // namespace msb::archive
