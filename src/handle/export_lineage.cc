// SPDX-License-Identifier: Apache-2.0

#include "src/handle/export_lineage.h"

#include <algorithm>
#include <cstddef>
#include <set>
#include <utility>

#include "src/base/throw.h"
#include "src/handle/lineage.h"

namespace msb::handle {
namespace {

using artifact::Artifact;
using artifact::ManifestForm;
using artifact::OpenedArtifact;
using base::Throw;

// The maximum number of artifacts of a lineage whose files are kept open. A lineage may have more
// files than a process may have descriptors.
constexpr std::size_t kMaxOpenArtifacts = 256;

void CheckSince(const Artifact& head, const std::string& since) {
  if (since == head.manifest.digest) {
    Throw(ErrorKind::kInvalidArgument,
          "'since' is the exported snapshot {} itself; set it to one of the ancestors of that "
          "snapshot",
          head.path.native());
  }
  if (head.manifest.form == ManifestForm::kLayered) {
    Throw(ErrorKind::kUnsupportedOperation,
          "{} gets another digest in the archive, so no receiver can have its ancestors; export it "
          "without 'since'",
          head.path.native());
  }
}

}  // namespace

ExportLineage LineageForExport(const Context& ctx, SnapshotFinder& finder, OpenedArtifact head,
                               bool with_parents, const std::optional<std::string>& since) {
  ExportLineage lineage;
  std::set<std::string> seen;
  const std::string head_path = head.artifact.path.native();
  if (since) CheckSince(head.artifact, *since);
  bool carried = true;  // False once the rest is only searched for since.
  for (OpenedArtifact current = std::move(head);;) {
    ctx.Check();
    const Artifact artifact = current.artifact;
    const std::optional<std::string>& parent = artifact.manifest.parent;
    if (!seen.insert(artifact.manifest.digest).second) {
      Throw(ErrorKind::kSnapshotIntegrity,
            "the parents of {} form a loop: {} is among its own ancestors; restore its manifest "
            "from a backup, or remove it",
            head_path, artifact.path.native());
    }
    const bool backed = carried && IsBackedByParent(current);
    const bool continues = carried && parent && (with_parents || backed);
    if (carried) {
      if (lineage.snapshots.size() >= kMaxOpenArtifacts) CloseLayers(current);
      lineage.snapshots.push_back(std::move(current));
    }
    if (!parent) {
      if (!since) break;
      Throw(ErrorKind::kInvalidArgument,
            "{} does not descend from the snapshot in 'since', {}; set 'since' to one of its "
            "ancestors, or leave it empty",
            head_path, *since);
    }
    if (parent == since) {
      if (continues) lineage.needed = since;
      break;
    }
    carried = continues;
    if (!carried && !since) break;
    current = finder.FindParent(artifact);
  }
  std::reverse(lineage.snapshots.begin(), lineage.snapshots.end());
  return lineage;
}

}  // namespace msb::handle
