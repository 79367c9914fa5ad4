// SPDX-License-Identifier: Apache-2.0
//
// The Catalog keeps the index of a home in step with its artifacts: it finds the snapshot that a
// name, a digest or a path refers to, and makes the changes that affect both the index and an
// artifact.
//
// Safe to use from several threads; several processes may use the same home.

#ifndef MSB_SRC_HANDLE_CATALOG_H_
#define MSB_SRC_HANDLE_CATALOG_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "src/artifact/store.h"
#include "src/handle/index_store.h"
#include "src/handle/row_paths.h"
#include "src/index/index.h"

namespace msb::handle {

struct Dependents;

class Catalog {
 public:
  using Log = std::function<void(std::string_view message)>;

  // log is called with no lock held, and may call the catalog.
  Catalog(base::Home home, Log log);

  const base::Home& home() const { return home_; }

  // The functions below return rows with the paths of artifacts in this home, even if the home is a
  // copy of the home in which the rows were written (ResolveRow).

  // The sandboxes whose disks are backed by a snapshot.
  struct SandboxUsers {
    std::vector<std::string> names = {};
    // The error of the first sandbox that cannot be read. It may be one of them.
    std::optional<Error> unreadable = {};
  };
  // Returns the sandboxes whose disks are backed by the snapshot with this digest, as they are now.
  using Users = std::function<SandboxUsers(std::string_view digest)>;

  // Returns the row of a snapshot. In a database that has one row for each digest, also finds an
  // artifact without a row, by its name or path, if its digest is indexed.
  // Throws kSnapshotNotFound if there is no such snapshot.
  index::Row Get(const Context& ctx, const std::string& name_digest_or_path);
  // Returns the indexed snapshots that name this one as their parent.
  std::vector<index::Row> ChildrenOf(const Context& ctx, const artifact::Artifact& parent);
  // Returns all rows, newest first.
  std::vector<index::Row> List(const Context& ctx);
  // Adds an artifact to the index or brings its row up to date, and returns the row. Logs a failure
  // instead of throwing, and then returns the row that should have been written.
  index::Row Record(const Context& ctx, const artifact::Artifact& artifact);
  // Does the same for an artifact whose publication cannot be undone. Waits up to 10 s for a locked
  // index, and 100 ms more once the 10 s have passed or ctx is done.
  index::Row RecordPublished(const Context& ctx, const artifact::Artifact& artifact);
  // Does the same as RecordPublished for imported artifacts; the time limits apply to all of them
  // together. In a database that has one row for each digest, an existing row is kept if it belongs
  // to another artifact that still exists. Returns the row of the last artifact.
  index::Row RecordCopies(const Context& ctx, std::span<const artifact::Artifact> artifacts);
  // Throws kIO if dir is absent or not a directory, unless it is the snapshots directory or the
  // index has rows of artifacts that were in it.
  std::uint32_t Reindex(const Context& ctx, const std::filesystem::path& dir);
  // Deletes an artifact and its row. The snapshot no longer exists when this returns. If ctx ends
  // while a large tree is being deleted, the next call that changes the directory deletes the rest.
  // If the index cannot be written, as on a full disk, the artifact is deleted first and the row
  // afterwards; a failure to erase the row is then logged.
  // Throws kCancelled, with nothing changed, if ctx ends while another call uses the artifact or
  // the index.
  // Throws kSnapshotNotFound if there is no such snapshot.
  // Throws kSnapshotHasChildren if other snapshots or sandboxes depend on it, unless force is set.
  // Snapshots that the index lacks count too (DependentsOf), and are added to the index.
  // Throws kIO if no dependent is found, but a snapshot or sandbox that may depend on it cannot be
  // read, unless force is set.
  // Throws kInvalidArgument if the path is a symbolic link.
  // Throws kUnsupportedOperation if it is a member of a 0.7 group.
  // Throws kIO if the snapshot is removed but its files cannot be deleted. The message names the
  // hidden path.
  // Unless force is set, the sandboxes that users returns count as children. users is called while
  // the artifact and the index are locked, so it must not wait.
  void Remove(const Context& ctx, const std::string& name_digest_or_path, bool force,
              const Users& users = {});
  // Does the same for the artifact of a row that was returned earlier: the artifact at the row's
  // path if it still has the row's digest, and otherwise another one with that digest.
  void Remove(const Context& ctx, const index::Row& row, bool force, const Users& users = {});
  // Does the same without force, for the artifact at the row's path only. Throws kSnapshotNotFound
  // if it does not have the row's digest any more.
  void RemoveListed(const Context& ctx, const index::Row& row, const Users& users);

  // Returns true if the home's runtime, 0.6.8 or earlier, does not read the descriptors that this
  // library writes. If the index cannot be read, logs a warning, and returns true only if the table
  // of the index is absent. Throws kCancelled if ctx ends.
  bool RuntimeNeedsManifests(const Context& ctx);
  // Returns the row that describes an artifact. Does not read the index.
  index::Row RowFor(const artifact::Artifact& artifact) const;

 private:
  using Access = IndexStore::Access;
  using Session = IndexStore::Session;
  class IndexPatience;
  // A Key identifies the snapshot to remove by name, digest or path. If digest is set and the
  // artifact at the path does not have it, the digest is used instead of the path, unless other
  // copies are excluded.
  struct Key {
    std::string text;
    std::string digest = {};
    bool exclude_copies = false;
  };
  // A Target represents the snapshot that a name, digest or path refers to: an artifact directory,
  // an index row, or both.
  struct Target {
    std::optional<std::filesystem::path> path = {};
    std::optional<index::Row> row = {};
  };
  // The rows to erase with an artifact.
  struct Rows {
    std::set<std::string> paths = {};
    std::string digest = {};
  };
  struct Removal;
  enum class Step { kAgain, kErased, kRowsRemain };

  struct Rebuilt {
    std::uint32_t indexed = 0;
    bool is_complete = false;  // No artifact was skipped because it could not be read (kIO).
  };
  Rebuilt Rebuild(const Context& ctx, index::Index& index, const std::filesystem::path& dir,
                  std::vector<std::string>& warnings) const;
  // Returns the resolved row that a name, digest or path refers to.
  std::optional<index::Row> Find(const index::Index& index, const std::string& key) const;
  std::optional<index::Row> FindByPath(const index::Index& index,
                                       const std::filesystem::path& path) const;
  // Returns a row for the artifact that a name or path refers to, if another artifact has the only
  // row of its digest.
  std::optional<index::Row> FindCopy(const index::Index& index, const std::string& key) const;
  std::optional<index::Row> Resolve(const index::Index& index, index::Row row) const;
  std::vector<index::Row> ResolveAll(const index::Index& index, std::vector<index::Row> rows) const;
  // Resolves rows that have one digest or name, and returns one of them. Prefers artifacts with a
  // valid manifest and, among these, artifacts in this home.
  std::optional<index::Row> Choose(const index::Index& index, std::vector<index::Row> rows) const;

  // Returns the row of the snapshot with this name, which may be outside the snapshots directory.
  // Throws kInvalidArgument if several different snapshots outside have it.
  std::optional<index::Row> ChooseNamed(const index::Index& index, const std::string& name) const;

  // A row, and the error if it could not be written.
  using Added = std::pair<index::Row, std::optional<Error>>;
  // Determines how Add treats the row of another artifact in a database that has one row for each
  // digest.
  enum class Copies { kReplace, kGiveWay };
  bool HasOther(const index::Index& index, const artifact::Artifact& artifact) const;
  Added Add(const Context& ctx, const artifact::Artifact& artifact,
            Copies copies = Copies::kReplace);
  // Adds an artifact that was just published. Waits for a locked index as long as patience allows.
  // Logs a failure.
  index::Row AddPublished(IndexPatience& patience, const artifact::Artifact& artifact,
                          Copies copies);
  Target FindTarget(const index::Index& index, const Key& key) const;
  void Remove(const Context& ctx, const Key& key, bool force, const Users& users);
  // Hides the artifact and erases its rows.
  Step HideAndErase(Session& session, Removal& removal) const;
  Rows RowsOf(const index::Index& index, const Target& target) const;
  // Finds the dependents on disk and adds them to the index.
  Dependents FindDependents(const Context& ctx, const index::Row& parent);
  void RefuseParent(const index::Index& index, const index::Row& row, const Removal& removal) const;
  // Erases the rows of an artifact whose files are deleted; logs a failure.
  void EraseRows(const Context& ctx, const Removal& removal);
  // Drops the rows of artifacts that were replaced or removed since they were read.
  static void DropOutdated(const index::Index& index, std::vector<index::Row>& rows);

  const base::Home home_;
  const Log log_;
  IndexStore store_;
};

}  // namespace msb::handle

#endif  // MSB_SRC_HANDLE_CATALOG_H_
