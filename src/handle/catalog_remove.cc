// SPDX-License-Identifier: Apache-2.0
//
// Catalog::Remove, which changes both the artifacts and the index.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <map>
#include <optional>
#include <system_error>
#include <vector>

#include "src/artifact/group.h"
#include "src/base/sqlite.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/handle/catalog.h"
#include "src/handle/dependents.h"

namespace msb::handle {
namespace {

using base::LockedDirectory;
using base::Throw;
using index::Index;
using index::Row;

// How long to wait for a locked index to erase the rows of an artifact whose files are deleted.
constexpr auto kEraseTimeout = std::chrono::seconds(10);

std::string Describe(const Row& row) {
  return row.name ? fmt::format("{} ({})", *row.name, row.digest) : row.digest;
}

// Returns the artifact directory that a path or a name leads to, even if the artifact is damaged,
// or nullopt if there is no artifact.
std::optional<std::filesystem::path> DirectoryOf(const base::Home& home, const std::string& key) {
  std::filesystem::path path = PathOf(home, key);
  if (!artifact::HoldsArtifact(path)) return std::nullopt;
  return path;
}

// Returns true if the index or the disk says so. An index without columns for groups does not know.
bool IsGroupMember(const std::optional<Row>& row,
                   const std::optional<std::filesystem::path>& path) {
  if (row && row->group_path) return true;
  const base::UniqueFd dir = path ? base::TryOpenDirectory(*path) : base::UniqueFd();
  return dir && artifact::ReadMembership(dir.get(), *path);
}

// Locks the artifact directory at path. Returns an empty object if there is no artifact any more.
// Throws kInvalidArgument if path is a symbolic link.
LockedDirectory LockArtifact(const Context& ctx, const std::filesystem::path& path) {
  LockedDirectory locked = LockedDirectory::Open(ctx, path.parent_path(), path.filename());
  if (locked && artifact::HoldsArtifact(locked.fd(), path)) return locked;
  std::error_code error;
  if (!locked && std::filesystem::is_symlink(path, error)) {
    Throw(ErrorKind::kInvalidArgument,
          "{} is a symbolic link; remove the snapshot that it points to, by its own path",
          path.native());
  }
  return {};
}

}  // namespace

// A Removal represents one attempt to remove a snapshot.
struct Catalog::Removal {
  const Context& ctx;
  const Key& key;
  const bool force;
  const Users& users;
  const Target found;
  LockedDirectory artifact = {};
  std::optional<Row> row = {};  // Describes the locked artifact, if its manifest is valid.
  Dependents dependents = {};   // Found on disk while the artifact is locked.
  Rows rows = {};
};

Catalog::Target Catalog::FindTarget(const Index& index, const Key& given) const {
  Key key = given;
  if (!key.digest.empty() && !HasDigest(key.text, key.digest)) {
    if (key.exclude_copies) {
      Throw(ErrorKind::kSnapshotNotFound, "snapshot {} is no longer at {}", key.digest, key.text);
    }
    key.text = key.digest;
  }
  Target target;
  if (!IsDigestKey(key.text)) target.path = DirectoryOf(home_, key.text);
  target.row = target.path ? FindByPath(index, *target.path) : Find(index, key.text);
  // A path stands for the artifact that is there, never for another copy of the same snapshot.
  if (!target.path && target.row && !artifact::IsPath(key.text) &&
      HasDigest(target.row->artifact_path, target.row->digest)) {
    target.path = target.row->artifact_path;
  }
  if (!target.path && !target.row) {
    Throw(ErrorKind::kSnapshotNotFound, "no snapshot '{}' in {}", base::Quoted(key.text),
          home_.snapshots_dir().native());
  }
  // Throws if the artifact may still exist; then its row must stay.
  if (!target.path) {
    base::CheckDirectoryUnlessAbsent(
        std::filesystem::path(target.row->artifact_path).parent_path());
  }
  if (IsGroupMember(target.row, target.path)) {
    Throw(ErrorKind::kUnsupportedOperation,
          "snapshot '{}' belongs to a group of release 0.7; remove it with 'msb snapshot remove'",
          base::Quoted(key.text));
  }
  return target;
}

Dependents Catalog::FindDependents(const Context& ctx, const Row& parent) {
  Dependents dependents = DependentsOf(ctx, home_.snapshots_dir(), parent);
  for (const artifact::Artifact& child : dependents.snapshots) {
    try {
      Add(ctx, artifact::OpenAt(ctx, child.path).artifact, Copies::kGiveWay);
    } catch (const Error& e) {
      // The child counts even if it has no row.
      if (e.kind() == ErrorKind::kCancelled) throw;
    }
  }
  return dependents;
}

void Catalog::RefuseParent(const Index& index, const Row& row, const Removal& removal) const {
  // Another copy in the snapshots directory serves the children as well.
  for (const Row& copy : ResolveAll(index, index.WithDigest(row.digest))) {
    const std::filesystem::path path = copy.artifact_path;
    if (path.parent_path() == home_.snapshots_dir() && !IsAlias(path, row.artifact_path) &&
        HasDigest(path, row.digest)) {
      return;
    }
  }
  std::map<std::string, std::string> children;  // By path.
  for (const Row& child : ResolveAll(index, index.ChildrenOf(row))) {
    if (child.artifact_path != row.artifact_path) children[child.artifact_path] = Describe(child);
  }
  for (const artifact::Artifact& child : removal.dependents.snapshots) {
    children.emplace(child.path.native(), Describe(RowFor(child)));
  }
  if (!children.empty()) {
    std::vector<std::string> names;
    names.reserve(children.size());
    for (const auto& [path, name] : children) names.push_back(name);
    Throw(ErrorKind::kSnapshotHasChildren,
          "{} is the parent of {}; remove these first, or use force", Describe(row),
          fmt::join(names, ", "));
  }
  const SandboxUsers sandboxes = removal.users ? removal.users(row.digest) : SandboxUsers();
  if (!sandboxes.names.empty()) {
    Throw(ErrorKind::kSnapshotHasChildren,
          "the disks of these sandboxes are backed by {}: {}; remove them first, or use force, "
          "after which their next snapshots are complete disks",
          Describe(row), fmt::join(sandboxes.names, ", "));
  }
  const auto refuse_unread = [&](std::string_view dependent, const Error& error) {
    Throw(ErrorKind::kIO,
          "{} is not removed, since a {} that may need it cannot be read: {}; make that {} "
          "readable, or use force",
          Describe(row), dependent, error.what(), dependent);
  };
  if (removal.dependents.unreadable) refuse_unread("snapshot", *removal.dependents.unreadable);
  if (sandboxes.unreadable) refuse_unread("sandbox", *sandboxes.unreadable);
}

Catalog::Rows Catalog::RowsOf(const Index& index, const Target& target) const {
  Rows rows;
  const std::string path = target.path ? target.path->native() : target.row->artifact_path;
  rows.paths.insert(path);
  if (!target.row) return rows;
  rows.digest = target.row->digest;
  // In a copy of a home, rows may have paths in the original.
  for (const Row& row : index.WithDigest(rows.digest)) {
    const auto resolved = Resolve(index, row);
    if (!resolved || resolved->artifact_path == path) rows.paths.insert(row.artifact_path);
  }
  return rows;
}

Catalog::Step Catalog::HideAndErase(Session& session, Removal& removal) const {
  Index& index = session.index();
  LockedDirectory& artifact = removal.artifact;
  base::Transaction transaction = index.Begin();
  Target target = FindTarget(index, removal.key);
  if (target.path != removal.found.path) return Step::kAgain;
  // The manifest on disk is authoritative, not its row in the index.
  if (removal.row) target.row = removal.row;
  if (target.row && !removal.force) RefuseParent(index, *target.row, removal);
  if (!artifact && session.refusal()) throw *session.refusal();
  removal.rows = RowsOf(index, target);
  removal.ctx.Check();
  if (artifact) artifact.Hide();
  try {
    for (const std::string& path : removal.rows.paths) index.Erase(path, removal.rows.digest);
    transaction.Commit();
  } catch (const Error& e) {
    // If the rows cannot be erased, as on a full disk, the files go first: Remove must be able to
    // free space.
    const auto* error = dynamic_cast<const base::DatabaseError*>(&e);
    if (artifact && error != nullptr &&
        error->cause() == base::DatabaseError::Cause::kInaccessible) {
      return Step::kRowsRemain;
    }
    artifact.PutBack();
    throw;
  }
  return session.refusal() ? Step::kRowsRemain : Step::kErased;
}

void Catalog::EraseRows(const Context& ctx, const Removal& removal) {
  try {
    store_.With(ctx, [&](Session& session) {
      if (session.refusal()) throw *session.refusal();
      Index& index = session.index();
      base::Transaction transaction = index.Begin();
      for (const std::string& path : removal.rows.paths) index.Erase(path, removal.rows.digest);
      transaction.Commit();
    });
  } catch (const Error& e) {
    log_(
        fmt::format("{} was removed, but the index of {} may still have its row: {}; call Reindex "
                    "to drop the row",
                    removal.found.path->native(), home_.path().native(), e.what()));
  }
}

void Catalog::Remove(const Context& ctx, const Key& key, bool force, const Users& users) {
  for (;;) {
    Removal removal{.ctx = ctx,
                    .key = key,
                    .force = force,
                    .users = users,
                    .found = store_.With(ctx, Access::kRead, [&](Session& session) {
                      return FindTarget(session.index(), key);
                    })};
    // Lock order: the artifact first, then the index.
    if (const auto& path = removal.found.path) {
      base::SweepStages(ctx, path->parent_path(), log_);
      removal.artifact = LockArtifact(ctx, *path);
      if (!removal.artifact) continue;  // Removed meanwhile: look it up again.
      if (const auto manifest = artifact::ReadManifest(removal.artifact.fd(), *path)) {
        removal.row = RowFor({.path = *path, .manifest = *manifest, .member = std::nullopt});
      }
      // Create locks the parent of a new snapshot, so none appears after this.
      const std::optional<Row>& row = removal.row ? removal.row : removal.found.row;
      if (row && !force) removal.dependents = FindDependents(ctx, *row);
    }
    const Step step =
        store_.With(ctx, [&](Session& session) { return HideAndErase(session, removal); });
    if (step == Step::kAgain) continue;
    const auto erase_rows = [&] {
      if (step == Step::kErased) return;
      EraseRows(Context::Background().WithTimeout(kEraseTimeout), removal);
    };
    try {
      removal.artifact.Delete(ctx);
    } catch (const Error&) {
      erase_rows();
      throw;
    }
    erase_rows();
    return;
  }
}

void Catalog::Remove(const Context& ctx, const std::string& key, bool force, const Users& users) {
  Remove(ctx, Key{.text = key}, force, users);
}

void Catalog::Remove(const Context& ctx, const Row& row, bool force, const Users& users) {
  Remove(ctx, Key{.text = row.artifact_path, .digest = row.digest}, force, users);
}

void Catalog::RemoveListed(const Context& ctx, const Row& row, const Users& users) {
  Remove(ctx, Key{.text = row.artifact_path, .digest = row.digest, .exclude_copies = true},
         /*force=*/false, users);
}

}  // namespace msb::handle
