// SPDX-License-Identifier: Apache-2.0

#include "src/handle/lineage.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/disk_names.h"
#include "src/disk/qcow2_header.h"

namespace msb::handle {
namespace {

using artifact::Artifact;
using artifact::DiskChain;
using artifact::DiskFile;
using artifact::OpenedArtifact;
using base::Throw;

// Returns the name of the file that an artifact's disk is backed by, or an empty string if it is
// backed by nothing. Throws kSnapshotIntegrity if it is neither its parent's disk nor its image.
std::string BackingNameOf(const OpenedArtifact& opened) {
  const Artifact& artifact = opened.artifact;
  if (artifact.manifest.layers.size() != 1) return {};
  const artifact::Layer& layer = artifact.manifest.layers[0];
  if (layer.format == DiskFormat::kRaw) return {};
  const std::string origin = (artifact.path / layer.file).native();
  std::string name = disk::ReadQcow2Header(opened.layers[0].fd.get(), origin).backing_file;
  if (!name.empty() && !artifact::IsBelow(artifact.manifest, name)) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} is backed by '{}', which is neither its parent's disk nor its image; remove the "
          "snapshot and import or pull it again",
          origin, base::Quoted(name));
  }
  return name;
}

// Returns the format of the artifact's image if name is the file name of the image in that format,
// or nullopt if name is another file's.
std::optional<DiskFormat> ImageFormat(const Artifact& artifact, const std::string& name) {
  return disk::FormatOfDiskFile(name, artifact.manifest.image.manifest_digest);
}

[[noreturn]] void Refuse(const Artifact& artifact, std::string_view why) {
  Throw(ErrorKind::kUnsupportedOperation, "the disk of {} cannot be used: {}",
        artifact.path.native(), why);
}

void CheckHasDisk(const Artifact& artifact) {
  if (artifact.manifest.layers.empty())
    Refuse(artifact, "it is a checkpoint of a running sandbox, which has no disk");
}

// Returns the artifact directory of the snapshot that the sandbox's disk is backed by, or an empty
// path if it is backed by no snapshot. Returns nullopt if a file that it is backed by exists only
// in the sandbox; see HasBacking.
std::optional<std::filesystem::path> FindBacking(const Context& ctx, Catalog& catalog,
                                                 const vmm::SandboxRecord& sandbox,
                                                 const Artifact& descendant) {
  std::filesystem::path path;
  if (sandbox.backing.empty()) return path;
  const artifact::Manifest& manifest = descendant.manifest;
  const std::string& name = sandbox.backing[0].name;
  DiskChain found;
  try {
    if (const auto format = ImageFormat(descendant, name)) {
      found.files.push_back(artifact::OpenImageFile(catalog.home().DisksDir() / name,
                                                    manifest.image, *format, manifest.fstype,
                                                    sandbox.upper->path.native()));
    } else if (manifest.parent) {
      SnapshotFinder finder(ctx, catalog);
      OpenedArtifact parent = finder.FindParent(descendant);
      CheckBootable(parent.artifact);
      path = parent.artifact.path;
      found = OpenDisk(finder, std::move(parent));
    }
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled || e.kind() == ErrorKind::kIO) throw;
    return std::nullopt;
  }
  const bool is_same = std::equal(found.files.begin(), found.files.end(), sandbox.backing.begin(),
                                  sandbox.backing.end(),
                                  [](const auto& a, const auto& b) { return a.name == b.name; });
  return is_same ? std::optional(std::move(path)) : std::nullopt;
}

}  // namespace

bool IsBackedByParent(const OpenedArtifact& opened) {
  const std::string name = BackingNameOf(opened);
  return !name.empty() && !ImageFormat(opened.artifact, name);
}

void CheckBootable(const Artifact& artifact) {
  const artifact::Manifest& manifest = artifact.manifest;
  CheckHasDisk(artifact);
  if (manifest.layers.size() > 1) {
    Refuse(artifact,
           fmt::format("it has {} layers, but only one is supported", manifest.layers.size()));
  }
  if (!manifest.required.empty()) {
    Refuse(artifact, fmt::format("it requires the extension '{}', which is not supported",
                                 base::Quoted(manifest.required[0])));
  }
}

DiskChain OpenDisk(SnapshotFinder& finder, OpenedArtifact opened) {
  DiskChain chain;
  CheckHasDisk(opened.artifact);
  std::string name = BackingNameOf(opened);
  for (std::size_t layer = 0; layer < opened.layers.size(); ++layer) {
    chain.files.push_back(artifact::FileOfLayer(opened, layer));
  }
  while (!name.empty()) {
    const std::string origin = chain.files.back().disk.path.native();
    const artifact::Manifest& manifest = opened.artifact.manifest;
    if (const auto format = ImageFormat(opened.artifact, name)) {
      chain.files.push_back(artifact::OpenImageFile(finder.home().DisksDir() / name, manifest.image,
                                                    *format, manifest.fstype, origin));
      break;
    }
    if (chain.files.size() > kMaxBackingFiles) {
      Throw(ErrorKind::kUnsupportedOperation,
            "{} has more than {} backing files, which is not supported; squash the snapshot where "
            "it was created",
            chain.files.front().disk.path.native(), kMaxBackingFiles);
    }
    opened = finder.FindParent(opened.artifact);
    CheckBootable(opened.artifact);
    const std::string next = BackingNameOf(opened);
    DiskFile file = artifact::FileOfLayer(opened, 0);
    if (file.name != name) {
      Throw(
          ErrorKind::kSnapshotIntegrity,
          "{} is backed by '{}', but its parent's disk is '{}'; remove the snapshot and import or "
          "pull it again",
          origin, base::Quoted(name), file.name);
    }
    chain.files.push_back(std::move(file));
    name = next;
  }
  return chain;
}

bool HasBacking(const Context& ctx, Catalog& catalog, const vmm::SandboxRecord& sandbox,
                const Artifact& descendant) {
  return FindBacking(ctx, catalog, sandbox, descendant).has_value();
}

std::optional<base::LockedDirectory> LockBacking(const Context& ctx, Catalog& catalog,
                                                 const vmm::SandboxRecord& sandbox,
                                                 const Artifact& descendant) {
  base::LockedDirectory lock;
  std::filesystem::path locked;
  for (;;) {
    ctx.Check();
    const auto parent = FindBacking(ctx, catalog, sandbox, descendant);
    if (!parent) return std::nullopt;
    if (parent->empty() || (lock && locked == *parent)) return lock;
    lock = base::LockedDirectory();
    // Remove locks the directory, even if a symbolic link leads to it.
    std::error_code error;
    const auto directory = std::filesystem::canonical(*parent, error);
    if (error) return std::nullopt;
    lock = base::LockedDirectory::Open(ctx, directory.parent_path(), directory.filename(),
                                       base::LockMode::kShared);
    locked = *parent;
  }
}

void IndexParent(const Context& ctx, Catalog& catalog, const vmm::SandboxRecord& sandbox) {
  if (!sandbox.snapshot_digest || sandbox.snapshot_path.empty()) return;
  try {
    catalog.Get(ctx, *sandbox.snapshot_digest);
    return;
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
    if (e.kind() != ErrorKind::kSnapshotNotFound) return;
  }
  try {
    const Artifact parent = artifact::OpenAt(ctx, sandbox.snapshot_path).artifact;
    if (parent.manifest.digest == sandbox.snapshot_digest) catalog.Record(ctx, parent);
  } catch (const Error& e) {
    // Without the parent, a snapshot of the sandbox is a complete disk.
    if (e.kind() == ErrorKind::kCancelled) throw;
  }
}

}  // namespace msb::handle
