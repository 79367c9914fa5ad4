// SPDX-License-Identifier: Apache-2.0

#include "src/handle/dependents.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"

namespace msb::handle {
namespace {

using artifact::Artifact;

// Returns the overlays among the indexed children, worded for messages.
std::vector<std::string> OverlaysInIndex(const Context& ctx, Catalog& catalog,
                                         const Artifact& parent) {
  std::vector<std::string> overlays;
  for (const index::Row& row : catalog.ChildrenOf(ctx, parent)) {
    if (row.format != ToString(DiskFormat::kQcow2)) continue;
    overlays.push_back(fmt::format("snapshot {}", base::Quoted(row.artifact_path)));
  }
  return overlays;
}

struct FoundOverlays {
  std::vector<std::string> names = {};   // Worded for messages.
  std::optional<Error> unreadable = {};  // The error of the first artifact that cannot be read.
};

FoundOverlays OverlaysIn(const Context& ctx, const std::filesystem::path& dir,
                         const Artifact& parent) {
  FoundOverlays overlays;
  const auto found = [&](const Artifact& artifact) {
    const artifact::Manifest& manifest = artifact.manifest;
    if (manifest.parent != parent.manifest.digest || manifest.layers.empty()) return;
    if (manifest.layers[0].format != DiskFormat::kQcow2 || artifact.path == parent.path) return;
    overlays.names.push_back(fmt::format("snapshot {}", base::Quoted(artifact.path.native())));
  };
  artifact::WalkManifests(ctx, dir, found, [&](const Error& e) {
    if (e.kind() == ErrorKind::kIO && !overlays.unreadable) overlays.unreadable = e;
  });
  return overlays;
}

}  // namespace

bool IsBackedBy(const vmm::SandboxRecord& sandbox, std::string_view snapshot_digest) {
  return std::any_of(sandbox.backing.begin(), sandbox.backing.end(), [&](const auto& file) {
    return disk::FormatOfDiskFile(file.name, snapshot_digest) == file.disk.format;
  });
}

std::vector<std::string> SandboxesBackedBy(const std::vector<vmm::SandboxRecord>& sandboxes,
                                           std::string_view snapshot_digest) {
  std::vector<std::string> names;
  for (const vmm::SandboxRecord& sandbox : sandboxes) {
    if (IsBackedBy(sandbox, snapshot_digest)) names.push_back(sandbox.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void CheckReplaceable(const Context& ctx, Catalog& catalog, vmm::Backend& backend,
                      const Artifact& old) {
  FoundOverlays overlays;
  try {
    overlays.names = OverlaysInIndex(ctx, catalog, old);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
  }
  // The index may lack children: while it cannot be written, artifacts that cannot be read have no
  // rows.
  if (overlays.names.empty()) overlays = OverlaysIn(ctx, catalog.home().snapshots_dir(), old);
  std::vector<std::string> users = std::move(overlays.names);
  for (const std::string& name : SandboxesBackedBy(backend.List(ctx), old.manifest.digest)) {
    users.push_back(fmt::format("sandbox '{}'", base::Quoted(name)));
  }
  if (users.empty() && overlays.unreadable) {
    base::Throw(
        ErrorKind::kIO,
        "{} cannot be replaced, since a snapshot that may need its disk cannot be read: {}; "
        "choose another name, or make that snapshot readable",
        old.path.native(), overlays.unreadable->what());
  }
  if (users.empty()) return;
  base::Throw(
      ErrorKind::kSnapshotHasChildren,
      "{} cannot be replaced, since these need its disk: {}; choose another name, or remove "
      "or squash these first",
      old.path.native(), fmt::join(users, ", "));
}

}  // namespace msb::handle
