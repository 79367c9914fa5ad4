// SPDX-License-Identifier: Apache-2.0

#include "src/registry/pull.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "src/archive/image_names.h"
#include "src/archive/import.h"
#include "src/archive/limits.h"
#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/registry/file_pull.h"
#include "src/registry/remote_files.h"

namespace msb::registry {
namespace {

using archive::IncomingSnapshot;
using archive::Intake;
using archive::Layout;
using artifact::Artifact;
using base::Digest;
using base::Throw;
using base::UniqueFd;

archive::SourceWords WordsFor(const Reference& reference) {
  return {.noun = reference.ToString(),
          .part = "file",
          .identity = "its digest",
          .next_step = "push the snapshot again",
          .elsewhere = "pull under another name or to another directory",
          .complete = "pull or import that snapshot first",
          .resend = "push the result"};
}

Layout LayoutOf(artifact::ManifestForm form) {
  return form == artifact::ManifestForm::kManifest ? Layout::kLegacy : Layout::kInventory;
}

// A snapshot of the index.
struct RemoteSnapshot {
  RemoteFile file;
  std::string bytes;  // The artifact's manifest.
  std::string digest;
};

// A file of an image.
struct RemoteImage {
  RemoteFile file;
  ChunkTable table;
};

// Returns how many chunks of the files have the same place and content.
std::size_t CountCommonChunks(const ChunkTable& one, const ChunkTable& other) {
  if (one.chunk_size != other.chunk_size) return 0;
  std::size_t count = 0;
  auto second = other.chunks.begin();
  for (const Chunk& first : one.chunks) {
    while (second != other.chunks.end() && second->index < first.index) ++second;
    if (second == other.chunks.end()) break;
    if (second->index == first.index && second->hash == first.hash) ++count;
  }
  return count;
}

// Returns the files with this content.
std::vector<const RemoteFile*> FilesWith(Content content, const std::vector<RemoteFile>& files) {
  std::vector<const RemoteFile*> found;
  for (const RemoteFile& file : files) {
    if (file.manifest.content == content) found.push_back(&file);
  }
  return found;
}

class Puller {
 public:
  Puller(const Context& ctx, const PullSpec& spec, Origins& origins)
      : ctx_(ctx),
        silent_(ctx.WithProgress({})),
        spec_(spec),
        origins_(origins),
        meter_(ctx, "pull", 0),
        client_(ctx, spec.reference.registry, spec.options),
        workers_([this] { client_.Wake(); }),
        remote_(client_, spec.reference),
        session_{.ctx = ctx,
                 .client = client_,
                 .workers = workers_,
                 .meter = meter_,
                 .repository = spec.reference.repository} {
    client_.OnTraffic([this](std::uint64_t bytes) { meter_.Add(bytes); });
  }

  std::vector<Artifact> Run() {
    const SnapshotIndex index = remote_.GetIndex();
    const std::span<const IndexEntry> entries = index.entries;
    RemoteSnapshot head = GetHead(entries.first(1));
    const std::string head_digest = head.digest;
    if (auto present = FindPresent(head_digest)) return {CheckedName(*std::move(present))};
    // The stage is that of the head, from whatever registry it comes.
    Intake intake(ctx_, spec_.receiver, WordsFor(spec_.reference),
                  Digest::Require(head.digest).hex());
    intake.CheckNameFree();
    try {
      AddSnapshot(intake, std::move(head));
      GetOthers(intake, entries.subspan(1));
      return Receive(intake, head_digest);
    } catch (const Error& e) {
      if (!MayContinue(e.kind())) intake.Discard();
      throw;
    }
  }

 private:
  // Returns true if a later pull may continue with what an error of this kind has interrupted.
  static bool MayContinue(ErrorKind kind) {
    return kind == ErrorKind::kCancelled || kind == ErrorKind::kIO ||
           kind == ErrorKind::kRegistryUnavailable || kind == ErrorKind::kRegistryUnauthorized;
  }

  // Gets the content of the snapshots that were added, and publishes them.
  std::vector<Artifact> Receive(Intake& intake, const std::string& head) {
    const std::vector<IncomingSnapshot*> order = intake.snapshots().InOrder();
    CheckHead(*order.back(), head);
    if (const Artifact* present = intake.FindPresent(order)) return {CheckedName(*present)};
    GetTables(order);
    FindImages();
    for (IncomingSnapshot* snapshot : order) {
      if (!snapshot->present) PullDisk(intake, *snapshot);
    }
    for (const RemoteImage& image : images_) PullImageFile(intake, image);
    meter_.Finish();
    return Publish(intake, order);
  }

  std::optional<Artifact> FindPresent(const std::string& digest) const {
    return spec_.receiver.find_present ? spec_.receiver.find_present(digest) : std::nullopt;
  }

  // Returns head, which is already present. Throws kSnapshotAlreadyExists if its name differs from
  // the requested one.
  Artifact CheckedName(Artifact head) const {
    const auto& name = spec_.receiver.name;
    if (name && head.Name() != *name) archive::RefusePresent(head);
    return head;
  }

  std::vector<RemoteFile> GetManifests(std::span<const IndexEntry> entries) {
    std::vector<RemoteFile> files;
    files.reserve(entries.size());
    remote_.GetManifests(entries, [&](RemoteFile file) { files.push_back(std::move(file)); });
    return files;
  }

  // Gets the snapshots among the files.
  void GetSnapshots(const std::vector<RemoteFile>& files,
                    const std::function<void(RemoteSnapshot snapshot)>& use) {
    const std::vector<const RemoteFile*> snapshots = FilesWith(Content::kSnapshot, files);
    remote_.GetArtifactManifests(snapshots, [&](std::size_t index, std::string bytes) {
      const RemoteFile& file = *snapshots[index];
      std::string digest =
          artifact::ParseManifest(
              file.manifest.form, bytes,
              fmt::format("{} ({})", spec_.reference.ToString(), file.manifest.manifest.digest))
              .digest;
      use({.file = file, .bytes = std::move(bytes), .digest = std::move(digest)});
    });
  }

  RemoteSnapshot GetHead(std::span<const IndexEntry> entry) {
    std::optional<RemoteSnapshot> head;
    const std::vector<RemoteFile> files = GetManifests(entry);
    GetSnapshots(files, [&](RemoteSnapshot snapshot) { head = std::move(snapshot); });
    if (head) return *std::move(head);
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} is listed first, but is not that of a snapshot; push the snapshot again",
          files.front().name);
  }

  void AddSnapshot(Intake& intake, RemoteSnapshot snapshot) {
    const Layout layout = LayoutOf(snapshot.file.manifest.form);
    if (snapshots_.empty()) layout_ = layout;
    if (layout != layout_ || snapshots_.contains(snapshot.digest)) {
      Throw(ErrorKind::kSnapshotIntegrity,
            "{} occurs twice, or is of another generation than the head; push the snapshot again",
            snapshot.file.name);
    }
    intake.Add(layout, DirectoryOf(layout, Digest::Require(snapshot.digest)), snapshot.file.name,
               snapshot.bytes);
    snapshot.bytes.clear();
    const std::string digest = snapshot.digest;
    snapshots_.emplace(digest, std::move(snapshot));
  }

  void GetOthers(Intake& intake, std::span<const IndexEntry> entries) {
    const std::vector<RemoteFile> files = GetManifests(entries);
    GetSnapshots(files, [&](RemoteSnapshot snapshot) { AddSnapshot(intake, std::move(snapshot)); });
    const std::vector<const RemoteFile*> images = FilesWith(Content::kImageFile, files);
    remote_.GetTables(images, [&](std::size_t index, ChunkTable table) {
      AddImage(*images[index], std::move(table));
    });
  }

  void AddImage(const RemoteFile& file, ChunkTable table) {
    const bool known = std::ranges::any_of(
        images_, [&](const RemoteImage& image) { return image.table.file == table.file; });
    if (!archive::IsImageFile(table.file) || known || images_.size() >= archive::kMaxImageFiles) {
      Throw(ErrorKind::kSnapshotIntegrity,
            "{} is for '{}', which is not a file of an image, occurs twice, or exceeds the limit "
            "of {} files; push the snapshot again",
            file.name, base::Quoted(table.file), archive::kMaxImageFiles);
    }
    images_.push_back({file, std::move(table)});
  }

  void CheckHead(const IncomingSnapshot& found, const std::string& head) const {
    if (found.id == head) return;
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} lists {} first, but {} descends from it; push the snapshot again",
          spec_.reference.ToString(), head, found.id);
  }

  void GetTables(const std::vector<IncomingSnapshot*>& order) {
    std::vector<const IncomingSnapshot*> absent;
    std::vector<const RemoteFile*> files;
    for (const IncomingSnapshot* snapshot : order) {
      if (snapshot->present) continue;
      absent.push_back(snapshot);
      files.push_back(&snapshots_.at(snapshot->id).file);
    }
    remote_.GetTables(files, [&](std::size_t index, ChunkTable table) {
      CheckTable(*absent[index], *files[index], table);
      CountBlobs(table);
      tables_.emplace(absent[index]->id, std::move(table));
    });
  }

  static void CheckTable(const IncomingSnapshot& snapshot, const RemoteFile& file,
                         const ChunkTable& table) {
    const artifact::Layer& layer = snapshot.manifest.layers.at(0);
    const bool merkle = layer.integrity && layer.integrity->algorithm == artifact::kFileMerkle;
    if (snapshot.manifest.layers.size() == 1 && table.file == layer.file &&
        table.size == layer.file_bytes.value_or(table.size) &&
        (!merkle || table.root == layer.integrity->digest)) {
      return;
    }
    Throw(ErrorKind::kSnapshotIntegrity,
          "the chunk table of {} is not that of the disk that the snapshot's manifest records: it "
          "is of '{}' with {} bytes and the integrity {}; push the snapshot again",
          file.name, base::Quoted(table.file), table.size, table.root);
  }

  void CountBlobs(const ChunkTable& table) {
    for (const Chunk& chunk : table.chunks) session_.total += chunk.blob.size;
    meter_.SetTotal(session_.total);
  }

  // Drops the image files that need not be pulled: a disk image that the cache has, and the files
  // of the runtimes' images if the cache has all of them.
  void FindImages() {
    std::map<std::string, bool> cached;
    bool all = true;
    for (const RemoteImage& image : images_) {
      all &= cached[image.table.file] = IsCached(image.table);
    }
    std::erase_if(images_, [&](const RemoteImage& image) {
      const bool drop =
          all || (archive::IsDiskImageFile(image.table.file) && cached[image.table.file]);
      if (!drop) CountBlobs(image.table);
      return drop;
    });
  }

  bool IsCached(const ChunkTable& table) const {
    const UniqueFd fd = OpenCached(table.file);
    if (!fd || base::StampOf(fd.get()).size != table.size) return false;
    return artifact::ComputeIntegrity(silent_, fd.get(), table.size, artifact::kFileMerkle)
               .digest == table.root;
  }

  // Returns an empty descriptor if the cache does not have the file.
  UniqueFd OpenCached(const std::filesystem::path& file) const {
    const UniqueFd dir = base::TryOpenDirectory(spec_.receiver.cache_dir / file.parent_path());
    if (!dir) return {};
    base::Entry entry = base::OpenEntryAt(dir.get(), file.filename());
    return entry.type == base::EntryType::kRegularFile ? std::move(entry.fd) : UniqueFd();
  }

  void PullDisk(Intake& intake, IncomingSnapshot& snapshot) {
    const ChunkTable& table = tables_.at(snapshot.id);
    const UniqueFd parent = OpenParentDisk(snapshot);
    const archive::StagedFile staged = intake.OpenDisk(snapshot, table.file, table.size);
    PullFileTo(staged, table, parent.get(), snapshots_.at(snapshot.id).file.name);
    complete_.emplace_back(&table, intake.DiskPath(snapshot, table.file));
    intake.AcceptDisk(snapshot, table.file,
                      {.name = table.file,
                       .size = table.size,
                       .path = intake.DiskPath(snapshot, table.file),
                       .integrity = {{std::string(artifact::kFileMerkle), table.root}}});
  }

  // Opens the disk of a parent that was here before, which may have the same chunks. Returns an
  // empty descriptor if the parent is absent.
  UniqueFd OpenParentDisk(const IncomingSnapshot& snapshot) const {
    const std::optional<std::string>& parent = snapshot.manifest.parent;
    if (!parent || tables_.contains(*parent)) return {};
    try {
      const auto found =
          spec_.receiver.find_backing ? spec_.receiver.find_backing(*parent) : std::nullopt;
      if (!found) return {};
      return artifact::OpenLayer(artifact::OpenAt(silent_, found->path), 0);
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kCancelled) throw;
      return {};  // It only saves time.
    }
  }

  // Opens the disk of this pull that has the most chunks of the file: that of the parent, or, for
  // an image, that of a raw snapshot. Returns an empty descriptor if none has any.
  UniqueFd OpenSimilarDisk(const ChunkTable& table) const {
    std::size_t most = 0;
    const std::filesystem::path* path = nullptr;
    for (const auto& [other, disk] : complete_) {
      const std::size_t count = CountCommonChunks(table, *other);
      if (count > most) path = &disk;
      most = std::max(most, count);
    }
    if (path == nullptr) return {};
    const UniqueFd dir = base::OpenDirectory(path->parent_path());
    return base::OpenEntryAt(dir.get(), path->filename()).fd;
  }

  void PullImageFile(Intake& intake, const RemoteImage& image) {
    const UniqueFd cached = OpenCached(image.table.file);
    const archive::StagedFile staged = intake.OpenImageFile(image.table.file, image.table.size);
    PullFileTo(staged, image.table, cached.get(), image.file.name);
  }

  // local is an open file that may have the same chunks, or -1.
  void PullFileTo(const archive::StagedFile& staged, const ChunkTable& table, int local,
                  const std::string& name) {
    const UniqueFd similar = OpenSimilarDisk(table);
    PullFile file{
        .fd = staged.fd.get(), .is_resumed = staged.is_left, .table = table, .name = name};
    for (const int fd : {similar.get(), local}) {
      if (fd >= 0) file.local.push_back(fd);
    }
    PullChunks(session_, file);
  }

  std::vector<Artifact> Publish(Intake& intake, const std::vector<IncomingSnapshot*>& order) {
    intake.snapshots().CheckArrived();
    intake.CheckImages(order);
    intake.CheckBacking(order, {});
    silent_.Check();
    std::vector<Artifact> artifacts = intake.Publish(order);
    RecordOrigins();
    return artifacts;
  }

  // Returns true if all blobs of the table were downloaded. Whether a blob holds a chunk that was
  // found here is unknown.
  bool IsVerified(const ChunkTable& table) const {
    return std::ranges::all_of(table.chunks, [&](const Chunk& chunk) {
      const auto blob = session_.verified.find(chunk.blob.digest);
      return blob != session_.verified.end() && blob->second == chunk.hash;
    });
  }

  void RecordOrigins() {
    std::vector<Transferred> pulled;
    for (const auto& [digest, table] : tables_) {
      if (!IsVerified(table)) continue;
      pulled.push_back({digest, snapshots_.at(digest).file.digest});
    }
    for (const RemoteImage& image : images_) {
      if (!IsVerified(image.table)) continue;
      pulled.push_back({image.table.file, image.file.digest});
    }
    origins_.Add(spec_.reference.registry, spec_.reference.repository, pulled);
  }

  const Context& ctx_;
  const Context silent_;  // The same without progress, which meter_ reports.
  const PullSpec& spec_;
  Origins& origins_;
  base::ProgressMeter meter_;
  RegistryClient client_;
  WorkerPool workers_;
  RemoteFiles remote_;
  PullSession session_;
  Layout layout_ = Layout::kInventory;
  std::map<std::string, RemoteSnapshot> snapshots_;  // By digest.
  std::map<std::string, ChunkTable> tables_;         // Those of the disks to pull, by digest.
  std::vector<RemoteImage> images_;
  // The disks that have been assembled, and their paths in the stage.
  std::vector<std::pair<const ChunkTable*, std::filesystem::path>> complete_;
};

}  // namespace

std::vector<Artifact> PullSnapshots(const Context& ctx, const PullSpec& spec, Origins& origins) {
  return Puller(ctx, spec, origins).Run();
}

}  // namespace msb::registry
