#include "src/handle/lineage.h"

#include <algorithm>
#include <optional>
#include <set>

#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/qcow2_header.h"

namespace msb::handle {
namespace {

using artifact::Artifact;
using artifact::ManifestForm;
using base::Throw;

// What children call it.
const std::string& IdOf(const Artifact& artifact) {
  const bool layered = artifact.manifest.form == ManifestForm::kLayered;
  return layered ? artifact.manifest.snapshot_id : artifact.manifest.digest;
}

std::optional<Artifact> FindIn(const Context& ctx, const std::filesystem::path& dir,
                               const std::string& id) {
  std::optional<Artifact> found;
  artifact::WalkArtifacts(
      ctx, dir,
      [&](Artifact artifact) {
        if (!found && IdOf(artifact) == id) found = std::move(artifact);
      },
      [](std::string_view) {});
  return found;
}

// The index may be out of date, so what it leads to must be what it says.
std::optional<Artifact> FindIndexed(const Context& ctx, Catalog& catalog, const std::string& id) {
  try {
    Artifact artifact = artifact::OpenArtifactAt(catalog.Get(ctx, id).artifact_path);
    if (IdOf(artifact) == id) return artifact;
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
  }
  return std::nullopt;
}

Artifact FindParent(const Context& ctx, Catalog& catalog,
                    const std::filesystem::path& snapshots_dir, const Artifact& child) {
  const std::string& id = *child.manifest.parent;
  auto parent = FindIndexed(ctx, catalog, id);
  if (!parent) parent = FindIn(ctx, child.path.parent_path(), id);
  if (!parent) parent = FindIn(ctx, snapshots_dir, id);
  if (!parent) {
    Throw(ErrorKind::kSnapshotNotFound,
          "{} has the parent {}, which is neither in the index nor in {}; import it first",
          child.path.native(), id, snapshots_dir.native());
  }
  return *std::move(parent);
}

// The image file of this name in the cache; nothing if the name is no image's.
std::optional<vmm::BackingFile> FindImage(const std::filesystem::path& cache_dir,
                                          const Artifact& artifact, const std::string& name) {
  const std::filesystem::path path = cache_dir / "disks" / name;
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kQcow2}) {
    if (name != artifact::DiskFileName(artifact.manifest.image.manifest_digest, format)) continue;
    if (!base::StampOf(path)) {
      Throw(ErrorKind::kSnapshotImageMissing,
            "{} stands on the image {}, which is not at {}; import the snapshot with its image",
            artifact.path.native(), base::Quoted(artifact.manifest.image.ref), path.native());
    }
    return vmm::BackingFile{name, {path, format, artifact.manifest.fstype}};
  }
  return std::nullopt;
}

}  // namespace

void CheckBootable(const Artifact& artifact) {
  const artifact::Manifest& manifest = artifact.manifest;
  const auto refuse = [&](std::string_view why) {
    Throw(ErrorKind::kUnsupportedOperation, "the disk of {} cannot be used: {}",
          artifact.path.native(), why);
  };
  if (manifest.layers.empty()) refuse("it is a checkpoint");
  if (manifest.layers.size() > 1) refuse("it has several layers");
  if (!manifest.required.empty()) {
    refuse("it requires the extension '" + base::Quoted(manifest.required[0]) + "'");
  }
}

std::vector<vmm::BackingFile> BackingOf(const Context& ctx, Catalog& catalog,
                                        const std::filesystem::path& snapshots_dir,
                                        const std::filesystem::path& cache_dir, Artifact artifact) {
  std::vector<vmm::BackingFile> files;
  for (;;) {
    CheckBootable(artifact);
    const artifact::Layer& layer = artifact.manifest.layers[0];
    if (layer.format == DiskFormat::kRaw) return files;
    const std::string origin = (artifact.path / layer.file).native();
    const base::UniqueFd fd = artifact::OpenLayer(artifact, layer);
    const std::string name = disk::ReadQcow2Header(fd.get(), origin).backing_file;
    if (name.empty()) return files;
    if (auto image = FindImage(cache_dir, artifact, name)) {
      files.push_back(*std::move(image));
      return files;
    }
    if (!artifact::IsBelow(artifact.manifest, name)) {
      Throw(ErrorKind::kSnapshotIntegrity,
            "{} stands on '{}', which is neither its parent's disk nor its image", origin,
            base::Quoted(name));
    }
    if (files.size() >= kMaxBackingFiles) {
      Throw(ErrorKind::kUnsupportedOperation, "{} stands on more than {} others; flatten it",
            origin, kMaxBackingFiles);
    }
    artifact = FindParent(ctx, catalog, snapshots_dir, artifact);
    CheckBootable(artifact);
    const artifact::Layer& parent = artifact.manifest.layers[0];
    files.push_back({name, {artifact.path / parent.file, parent.format, artifact.manifest.fstype}});
  }
}

std::vector<Artifact> LineageOf(const Context& ctx, Catalog& catalog,
                                const std::filesystem::path& snapshots_dir, Artifact head) {
  std::vector<Artifact> lineage;
  std::set<std::string> seen;
  lineage.push_back(std::move(head));
  while (lineage.back().manifest.parent) {
    if (!seen.insert(IdOf(lineage.back())).second) {
      Throw(ErrorKind::kSnapshotIntegrity, "{} is among its own parents",
            lineage.back().path.native());
    }
    lineage.push_back(FindParent(ctx, catalog, snapshots_dir, lineage.back()));
  }
  std::reverse(lineage.begin(), lineage.end());
  return lineage;
}

}  // namespace msb::handle
