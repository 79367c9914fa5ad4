// SPDX-License-Identifier: Apache-2.0
//
// Finds, for one operation, the snapshots that children and archives refer to by digest or id.

#ifndef MSB_SRC_HANDLE_FINDER_H_
#define MSB_SRC_HANDLE_FINDER_H_

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "src/artifact/store.h"
#include "src/handle/catalog.h"

namespace msb::handle {

// A SnapshotFinder looks snapshots up in the index and, if the index does not lead to them, in
// directories. It reads the manifests of each directory at most once. An id is a digest or, for a
// snapshot that a 0.7 runtime made, a snapshot id.
class SnapshotFinder {
 public:
  using Directories = std::vector<std::filesystem::path>;
  // Receives the error if the index, or an artifact that may be the wanted snapshot, cannot be
  // used. May throw.
  using Report = std::function<void(const Error&)>;

  // ctx and catalog must outlive the finder.
  SnapshotFinder(const Context& ctx, Catalog& catalog) : ctx_(ctx), catalog_(catalog) {}
  SnapshotFinder(const SnapshotFinder&) = delete;
  SnapshotFinder& operator=(const SnapshotFinder&) = delete;

  const base::Home& home() const { return catalog_.home(); }

  // Opens the snapshot with this id: the indexed artifact if it is intact, and otherwise an
  // artifact in dirs, which are searched in this order. Returns nullopt if the snapshot is missing.
  // Before it returns nullopt, calls unusable if the index or an artifact cannot be read (kIO), or
  // if the only artifact that may be the snapshot is damaged (kSnapshotIntegrity).
  // Throws kIO if the artifact is known to be the snapshot but cannot be read.
  std::optional<artifact::OpenedArtifact> Find(const std::string& id, const Directories& dirs,
                                               const Report& unusable);
  // Does the same without the index.
  std::optional<artifact::OpenedArtifact> FindIn(const std::string& id, const Directories& dirs,
                                                 const Report& unusable);
  // Opens the parent that the manifest of child names; the manifest must name one. Looks in the
  // index, beside the child and in the snapshots directory.
  // Throws kSnapshotNotFound if the parent is missing.
  // Throws kIO if the parent was not found, and the index or an artifact in these directories
  // cannot be read.
  // Throws kSnapshotIntegrity if the only artifact that may be the parent is damaged.
  artifact::OpenedArtifact FindParent(const artifact::Artifact& child);

 private:
  struct Directory {
    std::multimap<std::string, std::filesystem::path> artifacts = {};  // By digest and by id.
    std::optional<Error> unread = {};  // The error of the first artifact that cannot be read.
  };

  std::optional<artifact::OpenedArtifact> FindIndexed(const std::string& id);
  // Opens the artifact at path if it has this id. row is the index row that led to path, or null.
  std::optional<artifact::OpenedArtifact> TryOpen(const std::filesystem::path& path,
                                                  const std::string& id, const index::Row* row);
  std::optional<artifact::OpenedArtifact> Search(const std::string& id, const Directories& dirs,
                                                 const Report& unusable);
  const Directory& Read(const std::filesystem::path& dir);

  const Context& ctx_;
  Catalog& catalog_;
  std::map<std::filesystem::path, Directory> directories_;
  // Errors of the current search. unreadable_ is the error of the snapshot's own artifact.
  // unusable_ is the error of the index, or of an artifact that may be the snapshot.
  std::optional<Error> unreadable_;
  std::optional<Error> unusable_;
};

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_FINDER_H_
