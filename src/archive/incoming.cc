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

Manifest Parse(Layout layout, std::string_view bytes, std::string_view member_path) {
  switch (layout) {
    case Layout::kLegacy:
      return ParseManifest(ManifestForm::kManifest, bytes, member_path);
    case Layout::kInventory:
      return ParseManifest(ManifestForm::kDescriptor, bytes, member_path);
    case Layout::kLayered:
      break;
  }
  return ParseManifest(ManifestForm::kLayered, bytes, member_path);
}

// The directory that a snapshot has in an archive.
std::string DirectoryOf(Layout layout, const Manifest& manifest) {
  std::string hex = manifest.digest.substr(manifest.digest.find(':') + 1);
  switch (layout) {
    case Layout::kLegacy:
      return "sha256-" + hex.substr(0, 16);
    case Layout::kInventory:
      return hex;
    case Layout::kLayered:
      break;
  }
  return manifest.snapshot_id;
}

}  // namespace

IncomingSnapshot& IncomingSnapshots::Add(Layout layout, const MemberPath& path,
                                         std::string_view member_path, std::string_view bytes) {
  IncomingSnapshot snapshot{.directory = path.snapshot};
  snapshot.manifest = Parse(layout, bytes, member_path);
  const Manifest& manifest = snapshot.manifest;
  if (DirectoryOf(layout, manifest) != path.snapshot) {
    Throw(ErrorKind::kSnapshotIntegrity, "{} is the manifest of another snapshot: {}", member_path,
          layout == Layout::kLayered ? manifest.snapshot_id : manifest.digest);
  }
  if (manifest.state_kind != "file") {
    Throw(ErrorKind::kUnsupportedOperation,
          "{} is a checkpoint of a running sandbox; only its runtime can import it", member_path);
  }
  snapshot.id = layout == Layout::kLayered ? manifest.snapshot_id : manifest.digest;
  snapshot.manifest_path = member_path;
  snapshot.manifest_digest = base::Sha256Digest(bytes);
  for (const artifact::Layer& layer : manifest.layers) snapshot.awaited.insert(layer.file);
  return snapshots_.emplace_back(std::move(snapshot));
}

IncomingSnapshot& IncomingSnapshots::At(std::string_view directory) {
  const auto found =
      std::find_if(snapshots_.begin(), snapshots_.end(),
                   [&](const IncomingSnapshot& s) { return s.directory == directory; });
  if (found == snapshots_.end()) {
    Throw(ErrorKind::kSnapshotIntegrity, "the manifest of snapshot {} does not come first",
          directory);
  }
  return *found;
}

std::vector<IncomingSnapshot*> IncomingSnapshots::Arrived(const MemberPath& path) {
  std::vector<IncomingSnapshot*> owners;
  for (IncomingSnapshot& snapshot : snapshots_) {
    const bool may_own = path.snapshot.empty() || snapshot.directory == path.snapshot;
    if (may_own && snapshot.awaited.erase(path.file) == 1) owners.push_back(&snapshot);
  }
  if (owners.empty()) {
    Throw(ErrorKind::kSnapshotIntegrity, "'{}' belongs to no manifest that came before it",
          base::Quoted(path.file));
  }
  return owners;
}

std::vector<const IncomingSnapshot*> IncomingSnapshots::InOrder() const {
  std::map<std::string_view, const IncomingSnapshot*> by_id;
  std::set<std::string_view> parents;
  for (const IncomingSnapshot& snapshot : snapshots_) {
    if (!snapshot.awaited.empty()) {
      Throw(ErrorKind::kSnapshotIntegrity, "snapshot {} came without its disk '{}'", snapshot.id,
            base::Quoted(*snapshot.awaited.begin()));
    }
    by_id.emplace(snapshot.id, &snapshot);
    if (snapshot.manifest.parent) parents.insert(*snapshot.manifest.parent);
  }
  std::vector<const IncomingSnapshot*> order;
  for (const IncomingSnapshot& snapshot : snapshots_) {
    if (parents.contains(snapshot.id)) continue;
    if (!order.empty()) {
      Throw(ErrorKind::kSnapshotIntegrity, "the archive has two heads, {} and {}", order[0]->id,
            snapshot.id);
    }
    order.push_back(&snapshot);
  }
  // One more than there are: then it goes in a circle.
  while (!order.empty() && order.back()->manifest.parent && order.size() <= snapshots_.size()) {
    const auto parent = by_id.find(*order.back()->manifest.parent);
    if (parent == by_id.end()) break;
    order.push_back(parent->second);
  }
  if (order.empty() || order.size() != snapshots_.size()) {
    Throw(ErrorKind::kSnapshotIntegrity, "the archive's {} snapshots are not one chain of parents",
          snapshots_.size());
  }
  std::reverse(order.begin(), order.end());
  return order;
}

}  // namespace msb::archive
