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

std::string Describe(std::string_view artifact_path) {
  return fmt::format("snapshot {}", base::Quoted(artifact_path));
}

// Returns the overlays among the indexed children, worded for messages.
std::vector<std::string> OverlaysInIndex(const Context& ctx, Catalog& catalog,
                                         const Artifact& parent) {
  std::vector<std::string> overlays;
  for (const index::Row& row : catalog.ChildrenOf(ctx, parent)) {
    if (row.format == ToString(DiskFormat::kQcow2)) overlays.push_back(Describe(row.artifact_path));
  }
  return overlays;
}

bool IsOverlay(const Artifact& artifact) {
  const auto& layers = artifact.manifest.layers;
  return !layers.empty() && layers[0].format == DiskFormat::kQcow2;
}

[[noreturn]] void RefuseUnread(const Artifact& old, std::string_view dependent,
                               const Error& error) {
  base::Throw(ErrorKind::kIO,
              "{} cannot be replaced, since a {} that may need it cannot be read: {}; choose "
              "another name, or make that {} readable",
              old.path.native(), dependent, error.what(), dependent);
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

Dependents DependentsIn(const Context& ctx, const std::filesystem::path& dir,
                        const std::vector<std::string>& parents) {
  Dependents dependents;
  artifact::WalkManifests(
      ctx, dir,
      [&](Artifact artifact) {
        const auto& parent = artifact.manifest.parent;
        if (!parent) return;
        if (!parents.empty() && std::ranges::find(parents, *parent) == parents.end()) return;
        dependents.snapshots.push_back(std::move(artifact));
      },
      [&](const Error& e) {
        if (e.kind() == ErrorKind::kIO && !dependents.unreadable) dependents.unreadable = e;
      },
      parents);
  return dependents;
}

Dependents DependentsOf(const Context& ctx, const std::filesystem::path& snapshots_dir,
                        const index::Row& parent) {
  const std::filesystem::path path = parent.artifact_path;
  std::vector<std::string> ids = {parent.digest};
  if (parent.snapshot_id) ids.push_back(*parent.snapshot_id);
  Dependents dependents = DependentsIn(ctx, snapshots_dir, ids);
  if (path.parent_path() != snapshots_dir) {
    for (Artifact& child : DependentsIn(ctx, path.parent_path(), ids).snapshots) {
      dependents.snapshots.push_back(std::move(child));
    }
  }
  std::erase_if(dependents.snapshots, [&](const Artifact& child) { return child.path == path; });
  return dependents;
}

void CheckReplaceable(const Context& ctx, Catalog& catalog, const Catalog::Users& users,
                      const Artifact& old, std::string_view except) {
  std::vector<std::string> needed_by;
  try {
    needed_by = OverlaysInIndex(ctx, catalog, old);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
  }
  Dependents dependents;
  if (needed_by.empty()) {
    dependents = DependentsOf(ctx, catalog.home().snapshots_dir(), catalog.RowFor(old));
  }
  for (const Artifact& child : dependents.snapshots) {
    if (IsOverlay(child)) needed_by.push_back(Describe(child.path.native()));
  }
  const Catalog::SandboxUsers sandboxes = users(old.manifest.digest);
  for (const std::string& name : sandboxes.names) {
    if (name != except) needed_by.push_back(fmt::format("sandbox '{}'", base::Quoted(name)));
  }
  if (!needed_by.empty()) {
    base::Throw(
        ErrorKind::kSnapshotHasChildren,
        "{} cannot be replaced, since these need its disk: {}; choose another name, or remove "
        "or squash these first",
        old.path.native(), fmt::join(needed_by, ", "));
  }
  if (dependents.unreadable) RefuseUnread(old, "snapshot", *dependents.unreadable);
  if (sandboxes.unreadable) RefuseUnread(old, "sandbox", *sandboxes.unreadable);
}

}  // namespace msb::handle
