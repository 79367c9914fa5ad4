// SPDX-License-Identifier: Apache-2.0

#include "src/handle/catalog.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <unordered_map>
#include <utility>

#include "src/artifact/group.h"
#include "src/base/file.h"
#include "src/base/sqlite.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::handle {
namespace {

// How long a call waits for a locked index to record the artifacts that it has published, and how
// much longer after its Context is done.
constexpr auto kIndexTimeout = std::chrono::seconds(10);
constexpr auto kIndexGrace = std::chrono::milliseconds(100);

using artifact::Artifact;
using base::Throw;
using index::Index;
using index::Row;

Row RowOf(const Artifact& artifact) {
  const artifact::Manifest& manifest = artifact.manifest;
  Row row;
  row.digest = manifest.digest;
  row.name = artifact.Name();
  if (artifact.member) {
    row.group_name = artifact.member->group;
    row.group_path = artifact.member->group_path.native();
  }
  if (!manifest.snapshot_id.empty()) row.snapshot_id = manifest.snapshot_id;
  row.parent_digest = manifest.parent;
  row.image_ref = manifest.image.ref;
  row.image_manifest_digest = manifest.image.manifest_digest;
  row.artifact_path = artifact.path.native();
  if (!manifest.layers.empty()) {
    row.format = ToString(manifest.layers[0].format);
    row.fstype = manifest.fstype;
    row.size_bytes = manifest.size_bytes;
  }
  row.created_at = manifest.created;
  row.scope = manifest.scope;
  row.state_kind = manifest.state_kind;
  row.checkpoint_manifest_digest = manifest.checkpoint_manifest;
  return row;
}

// Returns the symbolic links in dir that lead to artifacts.
std::vector<std::filesystem::path> LinkedArtifacts(const std::filesystem::path& dir) {
  std::vector<std::filesystem::path> links;
  const base::UniqueFd opened = base::OpenDirectoryUnlessAbsent(dir);
  if (!opened) return links;
  for (const base::DirectoryEntry& entry : base::ListDirectory(opened.get())) {
    std::filesystem::path path = dir / entry.name;
    if (entry.type != base::EntryType::kSymlink) continue;
    try {
      if (artifact::HoldsArtifact(path)) links.push_back(std::move(path));
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kIO) throw;  // The directory cannot be read.
    }
  }
  return links;
}

// Returns true if the artifact is directly in dir, as all snapshots are that are not members of a
// group.
bool IsIn(const std::filesystem::path& artifact, const std::filesystem::path& dir) {
  return artifact.parent_path() == dir;
}

}  // namespace

Catalog::Catalog(base::Home home, Log log)
    : home_(std::move(home)),
      log_(std::move(log)),
      store_(home_, log_,
             [this](const Context& ctx, Index& index, std::vector<std::string>& warnings) {
               return Rebuild(ctx, index, home_.snapshots_dir(), warnings).is_complete;
             }) {}

Row Catalog::RowFor(const Artifact& artifact) const {
  Row row = RowOf(artifact);
  if (artifact.member || IsIn(artifact.path, home_.snapshots_dir())) return row;
  // A name is looked up in the snapshots directory first, so an artifact there keeps it.
  if (artifact::HoldsArtifact(home_.snapshots_dir() / *row.name)) row.name.reset();
  return row;
}

Catalog::Rebuilt Catalog::Rebuild(const Context& ctx, Index& index,
                                  const std::filesystem::path& dir,
                                  std::vector<std::string>& warnings) const {
  std::vector<Row> rows;
  bool is_complete = true;
  artifact::WalkArtifacts(
      ctx, dir, [&](const Artifact& artifact) { rows.push_back(RowFor(artifact)); },
      [&](const Error& error) {
        is_complete &= error.kind() != ErrorKind::kIO;
        warnings.push_back(fmt::format("not indexed: {}", error.what()));
      });
  for (const std::filesystem::path& path : LinkedArtifacts(dir)) {
    warnings.push_back(fmt::format(
        "not indexed: {} is a symbolic link; replace it with the directory that it points to",
        path.native()));
  }
  // The walk took no lock: meanwhile, other calls may have changed artifacts and recorded that.
  base::Transaction transaction = index.Begin();
  DropOutdated(index, rows);
  const std::uint32_t indexed = index.Rebuild(dir, std::move(rows));
  transaction.Commit();
  return {indexed, is_complete};
}

void Catalog::DropOutdated(const Index& index, std::vector<Row>& rows) {
  std::unordered_map<std::string, std::string> digests;
  for (const Row& row : index.All()) digests[row.artifact_path] = row.digest;
  std::erase_if(rows, [&](const Row& row) {
    const auto known = digests.find(row.artifact_path);
    if (known != digests.end() && known->second == row.digest) return false;
    const auto now = artifact::ReadManifest(row.artifact_path);
    return !now || now->digest != row.digest;
  });
}

std::optional<Row> Catalog::Resolve(const Index& index, Row row) const {
  const auto has_row = [&](const std::filesystem::path& path) {
    return index.FindByPath(path.native()).has_value();
  };
  auto resolved = ResolveRow(home_, row, has_row);
  // In a database with relative paths, an absolute one does not come from a moved home, so it is
  // used as it is.
  if (!resolved && index.HasRelativePaths()) return row;
  return resolved;
}

std::vector<Row> Catalog::ResolveAll(const Index& index, std::vector<Row> rows) const {
  std::vector<Row> resolved;
  std::set<std::string> paths;
  for (Row& row : rows) {
    auto found = Resolve(index, std::move(row));
    if (found && paths.insert(found->artifact_path).second) resolved.push_back(*std::move(found));
  }
  return resolved;
}

std::optional<Row> Catalog::Choose(const Index& index, std::vector<Row> rows) const {
  rows = ResolveAll(index, std::move(rows));
  if (rows.empty()) return std::nullopt;
  // In order of preference: a sound artifact in this home, any sound artifact, any artifact.
  const Row* best = &rows.front();
  if (rows.size() > 1) {
    int best_rank = -1;
    for (const Row& row : rows) {
      const int sound = HasDigest(row.artifact_path, row.digest) ? 1 : 0;
      const int rank = 2 * sound + (sound != 0 && home_.IsOwn(row.artifact_path) ? 1 : 0);
      if (rank > best_rank) best = &row;
      best_rank = std::max(rank, best_rank);
    }
  }
  return *best;
}

std::optional<Row> Catalog::ChooseNamed(const Index& index, const std::string& name) const {
  const std::vector<Row> rows = ResolveAll(index, index.WithName(std::nullopt, name));
  auto chosen = Choose(index, rows);
  if (!chosen || IsIn(chosen->artifact_path, home_.snapshots_dir())) return chosen;
  const bool same =
      std::ranges::all_of(rows, [&](const Row& row) { return row.digest == chosen->digest; });
  if (same) return chosen;
  std::vector<std::string> paths;
  paths.reserve(rows.size());
  for (const Row& row : rows) paths.push_back(row.artifact_path);
  Throw(ErrorKind::kInvalidArgument,
        "several snapshots outside {} have the name '{}': {}; give the path of one of them",
        home_.snapshots_dir().native(), base::Quoted(name), fmt::join(paths, ", "));
}

std::optional<Row> Catalog::FindByPath(const Index& index,
                                       const std::filesystem::path& path) const {
  if (auto row = index.FindByPath(path.native())) return row;
  // The home may have been moved, or been reached by another path, since the row was written.
  for (Row& row : index.WithFileName(path.filename().native())) {
    auto resolved = Resolve(index, std::move(row));
    if (resolved && resolved->artifact_path == path.native()) return resolved;
  }
  return std::nullopt;
}

std::optional<Row> Catalog::Find(const Index& index, const std::string& key) const {
  const std::filesystem::path& snapshots_dir = home_.snapshots_dir();
  if (IsDigestKey(key)) return Choose(index, index.WithDigest(key));
  if (artifact::IsPath(key)) return FindByPath(index, PathOf(home_, key));
  if (const std::size_t colon = key.find(':'); colon != std::string::npos) {
    return Choose(index, index.WithName(key.substr(0, colon), key.substr(colon + 1)));
  }
  if (auto row = ChooseNamed(index, key)) return row;
  if (auto row = index.FindBySnapshotId(std::nullopt, key)) return Resolve(index, *std::move(row));
  // A group's name stands for its head. The index does not know which member that is.
  if (!base::IsPlainFileName(key)) return std::nullopt;
  const base::UniqueFd group = base::TryOpenDirectory(snapshots_dir / key);
  if (!group) return std::nullopt;
  const auto head = artifact::ReadGroupHead(group.get(), snapshots_dir / key);
  if (!head) return std::nullopt;
  if (auto row = FindByPath(index, snapshots_dir / key / *head)) return row;
  auto row = index.FindBySnapshotId(key, *head);
  return row ? Resolve(index, *std::move(row)) : std::nullopt;
}

std::optional<Row> Catalog::FindCopy(const Index& index, const std::string& key) const {
  if (IsDigestKey(key) || key.find(':') != std::string::npos || !index.HasUniqueDigests()) {
    return std::nullopt;
  }
  const std::filesystem::path path = PathOf(home_, key);
  const auto manifest = artifact::ReadManifest(path);
  if (!manifest || index.WithDigest(manifest->digest).empty()) return std::nullopt;
  return RowFor({.path = path, .manifest = *manifest, .member = std::nullopt});
}

Row Catalog::Get(const Context& ctx, const std::string& key) {
  return store_.With(ctx, Access::kRead, [&](Session& session) {
    auto row = Find(session.index(), key);
    if (!row) row = FindCopy(session.index(), key);
    if (!row) session.index().CheckIntact();
    if (!row && session.refusal()) {
      Throw(ErrorKind::kSnapshotNotFound, "no snapshot '{}' in {}", base::Quoted(key),
            home_.snapshots_dir().native());
    }
    if (!row) {
      Throw(ErrorKind::kSnapshotNotFound,
            "no snapshot '{}' in the index of {}; call Reindex to add new snapshots to it",
            base::Quoted(key), home_.path().native());
    }
    return *std::move(row);
  });
}

std::vector<Row> Catalog::ChildrenOf(const Context& ctx, const Artifact& parent) {
  std::vector<Row> children = store_.With(ctx, Access::kRead, [&](Session& session) {
    const Index& index = session.index();
    return ResolveAll(index, index.ChildrenOf(RowOf(parent)));
  });
  std::erase_if(children, [&](const Row& row) { return row.artifact_path == parent.path; });
  return children;
}

std::vector<Row> Catalog::List(const Context& ctx) {
  return store_.With(ctx, Access::kRead, [&](Session& session) {
    return ResolveAll(session.index(), session.index().All());
  });
}

bool Catalog::HasOther(const Index& index, const Artifact& artifact) const {
  const auto holder = Choose(index, index.WithDigest(artifact.manifest.digest));
  return holder && holder->artifact_path != artifact.path &&
         HasDigest(holder->artifact_path, holder->digest);
}

Catalog::Added Catalog::Add(const Context& ctx, const Artifact& artifact, Copies copies) {
  return store_.With(ctx, [&](Session& session) -> Added {
    Index& index = session.index();
    auto row = index.FindByPath(artifact.path.native());
    if (row && row->digest == artifact.manifest.digest) {
      return {*std::move(row), session.refusal()};
    }
    // Decide again under the write lock: another call may have added, replaced or removed
    // something.
    base::Transaction transaction = index.Begin();
    Row recorded = RowFor(artifact);
    if (copies == Copies::kGiveWay && index.HasUniqueDigests() && HasOther(index, artifact)) {
      return {std::move(recorded), session.refusal()};
    }
    const auto now = artifact::ReadManifest(artifact.path);
    if (now && now->digest == artifact.manifest.digest) {
      index.Upsert(recorded);
    } else if (now) {
      index.Upsert(RowFor({.path = artifact.path, .manifest = *now, .member = artifact.member}));
    }
    transaction.Commit();
    session.NoteUnwritten();
    return {std::move(recorded), session.refusal()};
  });
}

Row Catalog::Record(const Context& ctx, const Artifact& artifact) {
  try {
    return Add(ctx, artifact).first;
  } catch (const Error& e) {
    log_(fmt::format("the index of {} could not be updated with {}: {}", home_.path().native(),
                     artifact.path.native(), e.what()));
    return RowOf(artifact);
  }
}

// Limits how long the published artifacts of one call wait for the index, all together.
class Catalog::IndexPatience {
 public:
  explicit IndexPatience(const Context& ctx) : context_(ctx.WithTimeout(kIndexTimeout)) {}

  const Context& context() const { return context_; }

  // Grants kIndexGrace once the Context is done. Returns false if that was granted before.
  bool Extend() {
    if (extended_) return false;
    extended_ = true;
    context_ = Context::Background().WithTimeout(kIndexGrace);
    return true;
  }

 private:
  Context context_;
  bool extended_ = false;
};

Row Catalog::AddPublished(IndexPatience& patience, const Artifact& artifact, Copies copies) {
  const auto warn = [&](std::string_view reason) {
    log_(fmt::format(
        "{} is complete, but could not be added to the index of {}: {}; to add it, open "
        "it by its name or call Reindex",
        artifact.path.native(), home_.path().native(), reason));
  };
  for (;;) {
    try {
      Added added = Add(patience.context(), artifact, copies);
      if (added.second) warn(added.second->what());
      return std::move(added.first);
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kCancelled && patience.Extend()) continue;
      warn(e.kind() == ErrorKind::kCancelled ? "it is locked by another call" : e.what());
      return RowOf(artifact);
    }
  }
}

Row Catalog::RecordPublished(const Context& ctx, const Artifact& artifact) {
  IndexPatience patience(ctx);
  return AddPublished(patience, artifact, Copies::kReplace);
}

Row Catalog::RecordCopies(const Context& ctx, std::span<const Artifact> artifacts) {
  IndexPatience patience(ctx);
  Row row;
  for (const Artifact& artifact : artifacts) {
    row = AddPublished(patience, artifact, Copies::kGiveWay);
  }
  return row;
}

std::uint32_t Catalog::Reindex(const Context& ctx, const std::filesystem::path& dir) {
  return store_.With(ctx, [&](Session& session) {
    if (session.refusal()) throw *session.refusal();
    const std::filesystem::path place = home_.RespellDirectory(dir);
    // An absent directory is most likely a mistake, unless there are rows to drop.
    const std::vector<Row> rows = session.index().All();
    const bool may_be_absent = place == home_.snapshots_dir() ||
                               std::any_of(rows.begin(), rows.end(), [&](const Row& row) {
                                 return base::IsBeneath(row.artifact_path, place);
                               });
    if (!may_be_absent) base::OpenDirectory(place);
    return Rebuild(ctx, session.index(), place, session.warnings()).indexed;
  });
}

bool Catalog::RuntimeNeedsManifests(const Context& ctx) {
  try {
    if (!home_.FindRuntimeDatabase()) return false;
    return store_.With(ctx, Access::kRead, [](Session& session) {
      if (!session.KnowsEra()) throw *session.refusal();
      return !session.index().ReadsDescriptors();
    });
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
    log_(e.what());
    // A release from before snapshots existed has no such table at all. An unknown table is that of
    // a later release.
    const auto* error = dynamic_cast<const base::DatabaseError*>(&e);
    return error != nullptr && error->cause() == base::DatabaseError::Cause::kNoTable;
  }
}

}  // namespace msb::handle
