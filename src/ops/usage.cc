// SPDX-License-Identifier: Apache-2.0

#include "src/ops/usage.h"

#include <fmt/format.h>

#include <cerrno>
#include <optional>

#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/disk/space_usage.h"

namespace msb::ops {
namespace {

// Returns whether the open directory holds the artifact of the row, or a damaged one.
bool HoldsArtifactOf(const index::Row& row, int dir) {
  if (!artifact::HoldsArtifact(dir, row.artifact_path)) return false;
  const auto manifest = artifact::ReadManifest(dir, row.artifact_path);
  return !manifest || manifest->digest == row.digest;
}

// Measures the artifact of a row. Returns nullopt if it is absent.
std::optional<disk::SpaceUsage> Measure(const Context& ctx, const index::Row& row) {
  for (;;) {
    ctx.Check();
    const base::UniqueFd dir = base::TryOpenDirectory(row.artifact_path);
    if (!dir || !HoldsArtifactOf(row, dir.get())) return std::nullopt;
    const disk::SpaceUsage usage = disk::MeasureDirectory(ctx, dir.get());
    // Otherwise it was removed or replaced meanwhile, and some of its files were not counted.
    if (base::LeadsTo(row.artifact_path, dir.get())) return usage;
  }
}

}  // namespace

std::vector<SnapshotUsage> UsageOfSnapshots(const Context& ctx, ClientState& client) {
  std::vector<SnapshotUsage> usages;
  for (const index::Row& row : client.catalog.List(ctx)) {
    std::optional<disk::SpaceUsage> space;
    try {
      space = Measure(ctx, row);
    } catch (const Error& e) {
      // ENOENT: it is on a volume that is not mounted.
      if (e.os_error() != EACCES && e.os_error() != EPERM && e.os_error() != ENOENT) throw;
      client.Log(fmt::format("the space of {} is not counted: {}", row.artifact_path, e.what()));
    }
    if (!space) continue;
    usages.push_back({.digest = row.digest,
                      .path = row.artifact_path,
                      .name = index::FullName(row),
                      .apparent = space->apparent,
                      .allocated = space->allocated,
                      .exclusive = space->exclusive});
  }
  return usages;
}

}  // namespace msb::ops
