#include "src/handle/catalog.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "src/artifact/group.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::handle {
namespace {

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

std::string Describe(const Row& row) {
  return row.name ? fmt::format("{} ({})", *row.name, row.digest) : row.digest;
}

bool IsDigestKey(const std::string& key) { return key.starts_with("sha256:"); }

// The artifact directory that a row means: the one it names or, in a home that was moved, the one
// of its name below the snapshots directory, if that has the row's digest. Nothing if it is gone,
// or another.
std::optional<std::filesystem::path> Locate(const Row& row,
                                            const std::filesystem::path& snapshots_dir) {
  std::vector<std::filesystem::path> places = {row.artifact_path};
  if (row.name && base::IsPlainFileName(*row.name)) places.push_back(snapshots_dir / *row.name);
  for (const std::filesystem::path& place : places) {
    const auto manifest = artifact::ReadManifest(place);
    if (manifest && manifest->digest == row.digest) return place;
  }
  return std::nullopt;
}

// The artifact directory that a path or a name leads to, which may be damaged.
std::optional<std::filesystem::path> DirectoryOf(const std::filesystem::path& snapshots_dir,
                                                 const std::string& key) {
  std::filesystem::path path =
      artifact::IsPath(key) ? base::AbsolutePath(key) : snapshots_dir / key;
  if (!artifact::HoldsArtifact(path)) return std::nullopt;
  return path;
}

// True if the index or the disk says so: an index without groups does not know them.
bool IsGroupMember(const std::optional<Row>& row,
                   const std::optional<std::filesystem::path>& path) {
  if (row && row->group_path) return true;
  const base::UniqueFd dir = path ? base::TryOpenDirectory(*path) : base::UniqueFd();
  return dir && artifact::ReadMembership(dir.get(), *path);
}

void RefuseParent(const Index& index, const Row& row) {
  std::vector<std::string> children;
  for (const Row& child : index.ChildrenOf(row)) {
    if (child.artifact_path != row.artifact_path) children.push_back(Describe(child));
  }
  if (children.empty()) return;
  Throw(ErrorKind::kSnapshotHasChildren, "{} is the parent of {}; remove these first, or use force",
        Describe(row), fmt::join(children, ", "));
}

}  // namespace

std::filesystem::path RuntimeDatabase(const std::filesystem::path& home) {
  return home / "db" / "msb.db";
}

// The index for one call: locked, open, and bound to the call's Context. What is to be logged is
// logged when the lock is released.
class Catalog::Session {
 public:
  Session(Catalog& catalog, const Context& ctx) : catalog_(catalog) {
    ctx.Check();
    Acquire(ctx);
    try {
      index_ = &catalog.Connect(ctx, warnings_);
    } catch (...) {
      Release();
      throw;
    }
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() {
    index_->Bind(Context::Background());
    Release();
  }

  Index& index() { return *index_; }
  std::vector<std::string>& warnings() { return warnings_; }

 private:
  // The longest between two looks at the Context.
  static constexpr auto kPause = std::chrono::milliseconds(50);

  void Acquire(const Context& ctx) {
    std::unique_lock lock(catalog_.mutex_);
    while (catalog_.in_use_) {
      catalog_.released_.wait_until(lock, std::chrono::system_clock::now() + kPause);
      ctx.Check();
    }
    catalog_.in_use_ = true;
  }

  void Release() {
    {
      const std::lock_guard lock(catalog_.mutex_);
      catalog_.in_use_ = false;
    }
    catalog_.released_.notify_one();
    for (const std::string& warning : warnings_) catalog_.log_(warning);
  }

  Catalog& catalog_;
  Index* index_ = nullptr;
  std::vector<std::string> warnings_;
};

Catalog::Catalog(std::filesystem::path home, std::filesystem::path snapshots_dir, Log log)
    : home_(std::move(home)), snapshots_dir_(std::move(snapshots_dir)), log_(std::move(log)) {}

Index Catalog::OpenOwnOrReplace(std::vector<std::string>& warnings) const {
  const std::filesystem::path path = home_ / "db" / "snapshots.db";
  try {
    return Index::OpenOwn(path);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kInternal) throw;
    warnings.push_back(fmt::format("made anew, since it was damaged: {}", e.what()));
  }
  for (const char* suffix : {"", "-wal", "-shm"}) base::RemoveFile(path.native() + suffix);
  return Index::OpenOwn(path);
}

Index& Catalog::Connect(const Context& ctx, std::vector<std::string>& warnings) {
  const std::filesystem::path runtime = RuntimeDatabase(home_);
  const std::filesystem::path own = home_ / "db" / "snapshots.db";
  const auto runtime_stamp = base::StampOf(runtime);
  const auto stamp = runtime_stamp ? runtime_stamp : base::StampOf(own);
  const bool same = index_ && index_->path() == (runtime_stamp ? runtime : own) && stamp &&
                    stamp->device == opened_.device && stamp->inode == opened_.inode;
  if (same) {
    index_->Bind(ctx);
    return *index_;
  }
  index_.reset();
  // Only one process at a time makes a database, or moves from one to the other.
  const base::UniqueFd dir = base::MakeDirectory(home_ / "db");
  base::Lock(ctx, dir.get());
  Index index = runtime_stamp ? Index::OpenRuntime(runtime) : OpenOwnOrReplace(warnings);
  index.Bind(ctx);
  if (!runtime_stamp && !index.IsBuilt()) {
    Rebuild(ctx, index, snapshots_dir_, warnings);
    index.MarkBuilt();
  } else if (runtime_stamp && base::StampOf(own)) {
    Rebuild(ctx, index, snapshots_dir_, warnings);
    for (const char* suffix : {"", "-wal", "-shm"}) base::RemoveFile(own.native() + suffix);
  }
  opened_ = base::StampOf(index.path()).value_or(base::FileStamp{});
  index_ = std::move(index);
  return *index_;
}

Row Catalog::RowFor(const Index& index, const Artifact& artifact) const {
  Row row = RowOf(artifact);
  if (artifact.member || artifact.path.parent_path() == snapshots_dir_) return row;
  // A name leads to the snapshots directory first, so what is there keeps it.
  const auto holder = index.FindByName(std::nullopt, *row.name);
  if (!holder || holder->artifact_path == row.artifact_path) return row;
  const std::filesystem::path place = holder->artifact_path;
  if (place.parent_path() == snapshots_dir_ && artifact::HoldsArtifact(place)) row.name.reset();
  return row;
}

std::uint32_t Catalog::Rebuild(const Context& ctx, Index& index, const std::filesystem::path& dir,
                               std::vector<std::string>& warnings) const {
  std::vector<Row> rows;
  artifact::WalkArtifacts(
      ctx, dir, [&](const Artifact& artifact) { rows.push_back(RowFor(index, artifact)); },
      [&](std::string_view message) {
        warnings.push_back(fmt::format("not indexed: {}", message));
      });
  return index.Rebuild(dir, std::move(rows));
}

std::optional<Row> Catalog::Find(const Index& index, const std::string& key) const {
  if (IsDigestKey(key)) return index.FindByDigest(key);
  if (artifact::IsPath(key)) return index.FindByPath(base::AbsolutePath(key).native());
  if (const std::size_t colon = key.find(':'); colon != std::string::npos) {
    return index.FindByName(key.substr(0, colon), key.substr(colon + 1));
  }
  if (auto row = index.FindByName(std::nullopt, key)) return row;
  // The name of a group: its head. The index does not know which that is.
  if (!base::IsPlainFileName(key)) return std::nullopt;
  const base::UniqueFd group = base::TryOpenDirectory(snapshots_dir_ / key);
  if (!group) return std::nullopt;
  const auto head = artifact::ReadGroupHead(group.get(), snapshots_dir_ / key);
  if (!head) return std::nullopt;
  if (auto row = index.FindByPath((snapshots_dir_ / key / *head).native())) return row;
  return index.FindBySnapshotId(key, *head);
}

Row Catalog::Get(const Context& ctx, const std::string& key) {
  Session session(*this, ctx);
  auto row = Find(session.index(), key);
  if (!row) {
    Throw(ErrorKind::kSnapshotNotFound,
          "no snapshot '{}' in the index of {}; Reindex finds new ones", base::Quoted(key),
          home_.native());
  }
  return *std::move(row);
}

std::vector<Row> Catalog::List(const Context& ctx) { return Session(*this, ctx).index().All(); }

Row Catalog::Record(const Context& ctx, const Artifact& artifact) {
  try {
    Session session(*this, ctx);
    auto row = session.index().FindByPath(artifact.path.native());
    if (row && row->digest == artifact.manifest.digest) return *std::move(row);
    Row recorded = RowFor(session.index(), artifact);
    session.index().Upsert(recorded);
    return recorded;
  } catch (const Error& e) {
    log_(fmt::format("{} is not in the index: {}", artifact.path.native(), e.what()));
    return RowOf(artifact);
  }
}

Row Catalog::RecordCopy(const Context& ctx, const Artifact& artifact) {
  try {
    Session session(*this, ctx);
    const auto holder = session.index().era() == index::Era::kLayered
                            ? std::nullopt
                            : session.index().FindByDigest(artifact.manifest.digest);
    if (holder && holder->artifact_path != artifact.path && Locate(*holder, snapshots_dir_)) {
      return RowOf(artifact);
    }
  } catch (const Error&) {
    // Record says it.
  }
  return Record(ctx, artifact);
}

std::uint32_t Catalog::Reindex(const Context& ctx, const std::filesystem::path& dir) {
  Session session(*this, ctx);
  return Rebuild(ctx, session.index(), dir, session.warnings());
}

void Catalog::Remove(const Context& ctx, const std::string& key, bool force) {
  Session session(*this, ctx);
  Index& index = session.index();
  std::optional<std::filesystem::path> path;
  if (!IsDigestKey(key)) path = DirectoryOf(snapshots_dir_, key);
  std::optional<Row> row = path ? index.FindByPath(path->native()) : Find(index, key);
  if (!path && row) path = Locate(*row, snapshots_dir_);
  if (!path && !row) {
    Throw(ErrorKind::kSnapshotNotFound, "no snapshot '{}' in {}", base::Quoted(key),
          snapshots_dir_.native());
  }
  if (IsGroupMember(row, path)) {
    Throw(ErrorKind::kUnsupportedOperation,
          "'{}' is in a group of release 0.7; remove it with 'msb snapshot remove'",
          base::Quoted(key));
  }
  if (path) {
    // What is on the disk counts, not what the index remembers of it.
    if (const auto manifest = artifact::ReadManifest(*path)) {
      row = RowOf({.path = *path, .manifest = *manifest, .member = std::nullopt});
    }
  }
  if (row && !force) RefuseParent(index, *row);
  ctx.Check();
  const auto hidden = path ? base::HideDurably(path->parent_path(), path->filename()) : path;
  index.Bind(Context::Background());  // From here on it is removed, and the row must follow.
  index.Erase(path ? path->native() : row->artifact_path, row ? row->digest : std::string());
  if (hidden) base::RemoveTree(*hidden);
}

bool Catalog::RuntimePredatesDescriptors(const Context& ctx) {
  if (!base::StampOf(RuntimeDatabase(home_))) return false;
  try {
    return Session(*this, ctx).index().era() == index::Era::kManifest;
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
    log_(e.what());
    // A release from before there were snapshots has no table at all.
    return e.kind() == ErrorKind::kUnsupportedOperation;
  }
}

}  // namespace msb::handle
