#include "src/handle/catalog.h"

#include <fmt/format.h>

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

// The artifact directory that a row means: the one it names or, in a home that was moved, the one
// of its name and digest below the snapshots directory. Nothing if it is gone.
std::optional<std::filesystem::path> Locate(const Row& row,
                                            const std::filesystem::path& snapshots_dir) {
  if (base::TryOpenDirectory(row.artifact_path)) return row.artifact_path;
  if (!row.name || row.group_name || !base::IsPlainFileName(*row.name)) return std::nullopt;
  try {
    const Artifact moved = artifact::OpenArtifactAt(snapshots_dir / *row.name);
    if (moved.manifest.digest == row.digest) return moved.path;
  } catch (const Error&) {
    // Nothing there that is this snapshot.
  }
  return std::nullopt;
}

bool IsDigestKey(const std::string& key) { return key.starts_with("sha256:"); }

// The row of the artifact in this directory; one made up from it if it is not in the index, and
// nothing if it is damaged as well.
std::optional<Row> RowAt(const Index& index, const std::filesystem::path& path) {
  if (auto row = index.FindByPath(path.native())) return row;
  try {
    const Row made_up = RowOf(artifact::OpenArtifactAt(path));
    const auto row = index.FindByDigest(made_up.digest);
    return row && !row->group_path ? row : made_up;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void RefuseIfParent(const Index& index, const Row& row) {
  std::vector<std::string> children;
  for (const Row& child : index.ChildrenOf(row)) {
    if (child.artifact_path != row.artifact_path) children.push_back(Describe(child));
  }
  if (children.empty()) return;
  Throw(ErrorKind::kSnapshotHasChildren, "{} is the parent of {}; remove these first, or use force",
        Describe(row), fmt::join(children, ", "));
}

// The artifact directory that a path or a name leads to. Looks only at whether it holds an
// artifact: a damaged one must be removable too.
std::optional<std::filesystem::path> DirectoryOf(const std::filesystem::path& snapshots_dir,
                                                 const std::string& key) {
  std::filesystem::path path =
      artifact::IsPath(key) ? base::AbsolutePath(key) : snapshots_dir / key;
  if (!artifact::HoldsArtifact(path)) return std::nullopt;
  return path;
}

}  // namespace

std::filesystem::path RuntimeDatabase(const std::filesystem::path& home) {
  return home / "db" / "msb.db";
}

Catalog::Catalog(std::filesystem::path home, std::filesystem::path snapshots_dir, Log log)
    : home_(std::move(home)), snapshots_dir_(std::move(snapshots_dir)), log_(std::move(log)) {}

Index& Catalog::Connect(const Context& ctx) {
  const std::filesystem::path runtime = RuntimeDatabase(home_);
  const std::filesystem::path own = home_ / "db" / "snapshots.db";
  const auto runtime_stamp = base::StampOf(runtime);
  const std::filesystem::path& wanted = runtime_stamp ? runtime : own;
  const auto stamp = runtime_stamp ? runtime_stamp : base::StampOf(own);
  const bool same = index_ && index_->path() == wanted && stamp &&
                    stamp->device == opened_.device && stamp->inode == opened_.inode;
  if (same) return *index_;
  index_.reset();
  // Only one process at a time makes a database, or moves from one to the other.
  const base::UniqueFd dir = base::MakeDirectory(home_ / "db");
  base::Lock(ctx, dir.get());
  bool read_again = false;
  if (runtime_stamp) {
    index_ = Index::OpenRuntime(runtime);
    read_again = base::StampOf(own).has_value();
  } else {
    index_ = Index::OpenOwn(own, read_again);
  }
  if (read_again) {
    try {
      Rebuild(ctx, *index_, snapshots_dir_);
    } catch (...) {
      index_.reset();
      throw;
    }
    if (runtime_stamp) {
      for (const char* suffix : {"", "-wal", "-shm"}) base::RemoveFile(own.native() + suffix);
    }
  }
  opened_ = base::StampOf(wanted).value_or(base::FileStamp{});
  return *index_;
}

std::uint32_t Catalog::Rebuild(const Context& ctx, Index& index, const std::filesystem::path& dir) {
  std::vector<Row> rows;
  artifact::WalkArtifacts(
      ctx, dir, [&](const Artifact& artifact) { rows.push_back(RowOf(artifact)); },
      [&](std::string_view message) { log_(fmt::format("not indexed: {}", message)); });
  return index.Rebuild(dir, rows);
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
  return index.FindBySnapshotId(key, *head);
}

Row Catalog::Get(const Context& ctx, const std::string& key) {
  ctx.Check();
  const std::lock_guard lock(mutex_);
  auto row = Find(Connect(ctx), key);
  if (!row) {
    Throw(ErrorKind::kSnapshotNotFound,
          "no snapshot '{}' in the index of {}; Reindex finds new ones", base::Quoted(key),
          home_.native());
  }
  return *std::move(row);
}

std::vector<Row> Catalog::List(const Context& ctx) {
  ctx.Check();
  const std::lock_guard lock(mutex_);
  return Connect(ctx).All();
}

void Catalog::Record(const Context& ctx, const Artifact& artifact) {
  try {
    const std::lock_guard lock(mutex_);
    Index& index = Connect(ctx);
    const auto row = index.FindByPath(artifact.path.native());
    if (row && row->digest == artifact.manifest.digest) return;
    index.Upsert(RowOf(artifact));
  } catch (const Error& e) {
    log_(fmt::format("{} is not in the index: {}", artifact.path.native(), e.what()));
  }
}

std::uint32_t Catalog::Reindex(const Context& ctx, const std::filesystem::path& dir) {
  ctx.Check();
  const std::lock_guard lock(mutex_);
  return Rebuild(ctx, Connect(ctx), dir);
}

void Catalog::Remove(const Context& ctx, const std::string& key, bool force) {
  ctx.Check();
  const std::lock_guard lock(mutex_);
  Index& index = Connect(ctx);
  std::optional<Row> row;
  std::optional<std::filesystem::path> path;
  if (!IsDigestKey(key)) path = DirectoryOf(snapshots_dir_, key);
  if (path) {
    row = RowAt(index, *path);
  } else if ((row = Find(index, key))) {
    path = Locate(*row, snapshots_dir_);
  }
  if (!path && !row) {
    Throw(ErrorKind::kSnapshotNotFound, "no snapshot '{}' in {}", base::Quoted(key),
          snapshots_dir_.native());
  }
  if (row && row->group_path) {
    Throw(ErrorKind::kUnsupportedOperation,
          "{} is in a group of release 0.7; remove it with 'msb snapshot remove'", Describe(*row));
  }
  if (row && !force) RefuseIfParent(index, *row);
  if (path) base::RemoveDurably(path->parent_path(), path->filename());
  if (row) index.Erase(row->artifact_path);
}

bool Catalog::RuntimePredatesDescriptors() {
  const std::filesystem::path runtime = RuntimeDatabase(home_);
  if (!base::StampOf(runtime)) return false;
  const std::lock_guard lock(mutex_);
  try {
    return Connect(Context::Background()).era() == index::Era::kManifest;
  } catch (const Error& e) {
    // A release from before there were snapshots has no table at all.
    if (e.kind() == ErrorKind::kUnsupportedOperation) return true;
    throw;
  }
}

}  // namespace msb::handle
