// SPDX-License-Identifier: Apache-2.0

#include "src/archive/incoming.h"

#include <algorithm>
#include <map>

#include "src/base/digest.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

using artifact::Manifest;
using artifact::ManifestForm;
using base::Throw;

Manifest Parse(Layout layout, std::string_view bytes, std::string_view document) {
  switch (layout) {
    case Layout::kLegacy:
      return ParseManifest(ManifestForm::kManifest, bytes, document);
    case Layout::kInventory:
      return ParseManifest(ManifestForm::kDescriptor, bytes, document);
    case Layout::kLayered:
      break;
  }
  return ParseManifest(ManifestForm::kLayered, bytes, document);
}

// Returns the name of the directory that a snapshot has in an archive.
std::string DirectoryOf(Layout layout, const Manifest& manifest) {
  if (layout == Layout::kLayered) return manifest.snapshot_id;
  return DirectoryOf(layout, base::Digest::Require(manifest.digest));
}

}  // namespace

const artifact::Layer& LayerOf(const IncomingSnapshot& snapshot, std::string_view file) {
  const auto& layers = snapshot.manifest.layers;
  return *std::find_if(layers.begin(), layers.end(),
                       [&](const artifact::Layer& layer) { return layer.file == file; });
}

IncomingSnapshot& IncomingSnapshots::Add(Layout layout, const std::string& directory,
                                         std::string_view document, std::string_view bytes) {
  IncomingSnapshot snapshot{.directory = directory};
  snapshot.manifest = Parse(layout, bytes, document);
  const Manifest& manifest = snapshot.manifest;
  snapshot.id = layout == Layout::kLayered ? manifest.snapshot_id : manifest.digest;
  if (DirectoryOf(layout, manifest) != directory) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} must match {}, but is the manifest of {}; {}",
          document, words_.identity, snapshot.id, words_.next_step);
  }
  if (manifest.state_kind != "file") {
    Throw(ErrorKind::kUnsupportedOperation,
          "{} is a checkpoint of a running sandbox; only its runtime can import it", document);
  }
  if (!directories_.insert(directory).second) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} has the snapshot {} twice; {}", words_.noun,
          snapshot.id, words_.next_step);
  }
  snapshot.manifest_path = document;
  snapshot.manifest_digest = base::Sha256Digest(bytes);
  for (const artifact::Layer& layer : manifest.layers) snapshot.awaited.insert(layer.file);
  return snapshots_.emplace_back(std::move(snapshot));
}

IncomingSnapshot* IncomingSnapshots::Find(std::string_view directory) {
  const auto found =
      std::find_if(snapshots_.begin(), snapshots_.end(),
                   [&](const IncomingSnapshot& s) { return s.directory == directory; });
  return found == snapshots_.end() ? nullptr : &*found;
}

std::vector<IncomingSnapshot*> IncomingSnapshots::Awaiting(const MemberPath& path) {
  std::vector<IncomingSnapshot*> owners;
  for (IncomingSnapshot& snapshot : snapshots_) {
    const bool may_own = path.snapshot.empty() || snapshot.directory == path.snapshot;
    if (may_own && snapshot.awaited.contains(path.file)) owners.push_back(&snapshot);
  }
  return owners;
}

void IncomingSnapshots::CheckArrived() const {
  for (const IncomingSnapshot& snapshot : snapshots_) {
    if (snapshot.awaited.empty()) continue;
    Throw(ErrorKind::kSnapshotIntegrity, "{}'s snapshot {} lacks its disk '{}'; {}", words_.noun,
          snapshot.id, base::Quoted(*snapshot.awaited.begin()), words_.next_step);
  }
}

std::vector<IncomingSnapshot*> IncomingSnapshots::InOrder() {
  std::map<std::string_view, IncomingSnapshot*> by_id;
  std::set<std::string_view> parents;
  for (IncomingSnapshot& snapshot : snapshots_) {
    by_id.emplace(snapshot.id, &snapshot);
    if (snapshot.manifest.parent) parents.insert(*snapshot.manifest.parent);
  }
  std::vector<IncomingSnapshot*> order;
  for (IncomingSnapshot& snapshot : snapshots_) {
    if (parents.contains(snapshot.id)) continue;
    if (!order.empty()) {
      Throw(ErrorKind::kSnapshotIntegrity, "{} must have one head, but has {} and {}; {}",
            words_.noun, order[0]->id, snapshot.id, words_.next_step);
    }
    order.push_back(&snapshot);
  }
  // The bound ends the loop if parents form a cycle; the chain is too long then.
  while (!order.empty() && order.back()->manifest.parent && order.size() <= snapshots_.size()) {
    const auto parent = by_id.find(*order.back()->manifest.parent);
    if (parent == by_id.end()) break;
    order.push_back(parent->second);
  }
  if (order.empty() || order.size() != snapshots_.size()) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "the snapshots of {} must form a single chain of parents, but do not; {}", words_.noun,
          words_.next_step);
  }
  std::reverse(order.begin(), order.end());
  return order;
}

}  // namespace msb::archive
