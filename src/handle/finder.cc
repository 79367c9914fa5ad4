// SPDX-License-Identifier: Apache-2.0

#include "src/handle/finder.h"

#include <fmt/format.h>

#include "src/base/throw.h"

namespace msb::handle {
namespace {

using artifact::Artifact;
using artifact::Manifest;
using artifact::OpenedArtifact;
using base::Throw;

bool IsNamed(const Manifest& manifest, const std::string& id) {
  return manifest.digest == id || (!manifest.snapshot_id.empty() && manifest.snapshot_id == id);
}

// Returns an error if the manifest at the path of the row was altered. found, the artifact there,
// has another digest than the row; if both were created at the same moment, it is still the same
// snapshot, so its manifest was altered.
std::optional<Error> AlterationOf(const index::Row& row, const Artifact& found) {
  const base::UtcTime& created = found.manifest.created;
  if (row.created_at.ToTimePoint() != created.ToTimePoint()) return std::nullopt;
  return Error(ErrorKind::kSnapshotIntegrity,
               fmt::format("the manifest of {} was altered: expected the digest {}, found {}; "
                           "restore it from a backup, or remove the snapshot and import or pull it "
                           "again",
                           found.path.native(), row.digest, found.manifest.digest));
}

// Keeps the first failure.
void Keep(std::optional<Error>& failure, const std::optional<Error>& error) {
  if (!failure) failure = error;
}

}  // namespace

std::optional<OpenedArtifact> SnapshotFinder::TryOpen(const std::filesystem::path& path,
                                                      const std::string& id,
                                                      const index::Row* row) {
  try {
    OpenedArtifact opened = artifact::OpenAt(ctx_, path);
    if (IsNamed(opened.artifact.manifest, id)) return opened;
    if (row != nullptr) Keep(unusable_, AlterationOf(*row, opened.artifact));
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
    if (e.kind() == ErrorKind::kIO) {
      Keep(unreadable_, Error(ErrorKind::kIO, fmt::format("cannot read the snapshot {} at {}: {}",
                                                          id, path.native(), e.what())));
    } else if (e.kind() != ErrorKind::kSnapshotNotFound) {
      Keep(unusable_, e);
    }
  }
  return std::nullopt;
}

std::optional<OpenedArtifact> SnapshotFinder::FindIndexed(const std::string& id) {
  std::optional<index::Row> row;
  try {
    row = catalog_.Get(ctx_, id);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
    if (e.kind() != ErrorKind::kSnapshotNotFound) Keep(unusable_, e);
    return std::nullopt;
  }
  return TryOpen(row->artifact_path, id, &*row);
}

const SnapshotFinder::Directory& SnapshotFinder::Read(const std::filesystem::path& dir) {
  const auto known = directories_.find(dir);
  if (known != directories_.end()) return known->second;
  Directory directory;
  artifact::WalkManifests(
      ctx_, dir,
      [&](const Artifact& artifact) {
        const Manifest& manifest = artifact.manifest;
        directory.artifacts.emplace(manifest.digest, artifact.path);
        if (manifest.snapshot_id.empty()) return;
        directory.artifacts.emplace(manifest.snapshot_id, artifact.path);
      },
      [&](const Error& error) {
        if (error.kind() == ErrorKind::kIO) Keep(directory.unread, error);
      });
  return directories_.emplace(dir, std::move(directory)).first->second;
}

std::optional<OpenedArtifact> SnapshotFinder::Find(const std::string& id, const Directories& dirs,
                                                   const Report& unusable) {
  unreadable_.reset();
  unusable_.reset();
  if (auto opened = FindIndexed(id)) return opened;
  return Search(id, dirs, unusable);
}

std::optional<OpenedArtifact> SnapshotFinder::FindIn(const std::string& id, const Directories& dirs,
                                                     const Report& unusable) {
  unreadable_.reset();
  unusable_.reset();
  return Search(id, dirs, unusable);
}

std::optional<OpenedArtifact> SnapshotFinder::Search(const std::string& id, const Directories& dirs,
                                                     const Report& unusable) {
  for (const std::filesystem::path& dir : dirs) {
    const Directory& directory = Read(dir);
    const auto [first, last] = directory.artifacts.equal_range(id);
    for (auto entry = first; entry != last; ++entry) {
      if (auto opened = TryOpen(entry->second, id, nullptr)) return opened;
    }
    Keep(unusable_, directory.unread);
  }
  if (unreadable_) throw *unreadable_;
  if (unusable_) unusable(*unusable_);
  return std::nullopt;
}

OpenedArtifact SnapshotFinder::FindParent(const Artifact& child) {
  const std::string& id = *child.manifest.parent;
  auto parent =
      Find(id, {child.path.parent_path(), home().snapshots_dir()}, [](const Error& e) { throw e; });
  if (parent) return *std::move(parent);
  Throw(ErrorKind::kSnapshotNotFound,
        "{} has the parent {}, which is neither in the index, nor in {}, nor beside it; import the "
        "parent, or reindex the directory that holds it",
        child.path.native(), id, home().snapshots_dir().native());
}

}  // namespace msb::handle
