#include "src/handle/lineage.h"

#include <algorithm>
#include <optional>
#include <set>

#include "src/base/throw.h"

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
          "{} has the parent {}, which is neither in the index nor in {}; import it, or go without "
          "parents",
          child.path.native(), id, snapshots_dir.native());
  }
  return *std::move(parent);
}

}  // namespace

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
