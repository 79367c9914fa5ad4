// SPDX-License-Identifier: Apache-2.0

#include "src/archive/import.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "src/archive/image_files.h"
#include "src/archive/import_backing.h"
#include "src/archive/incoming.h"
#include "src/archive/inventory.h"
#include "src/archive/layout_guess.h"
#include "src/archive/receiver.h"
#include "src/base/staging.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/qcow2_check.h"
#include "src/disk/qcow2_header.h"
#include "src/disk/sparse_copy.h"

namespace msb::archive {
namespace {

using artifact::Artifact;
using artifact::Integrity;
using base::Throw;
using base::UniqueFd;

// Directories in the stage for image files, and for disks that arrived before their manifests. The
// names of the artifacts beside them do not begin with a dot.
constexpr const char* kStagedImages = ".images";
constexpr const char* kStagedEarly = ".early";

// A disk that has arrived. Several snapshots may claim it.
struct ArrivedPayload {
  std::string path = {};            // In the archive.
  std::uint64_t size = 0;           // Bytes, holes included.
  std::size_t member = 0;           // Its index among the members.
  std::filesystem::path file = {};  // Where it is staged; empty if the receiver has it already.
  bool early = false;  // It arrived before its manifest, and is not in its directory yet.
  std::optional<Integrity> integrity = {};    // As computed from its content.
  std::optional<artifact::Layer> layer = {};  // As recorded by the first snapshot that claimed it.
};

class Importer {
 public:
  Importer(const Context& ctx, const ImportSpec& spec)
      : ctx_(ctx),
        silent_(ctx.WithProgress({})),
        spec_(spec),
        file_(spec.archive),
        meter_(ctx, "import", file_.size()),
        input_(ctx, file_, meter_),
        reader_(input_),
        receiver_(silent_, input_, reader_, layout_, spec.destination) {}

  std::vector<Artifact> Run() {
    if (spec_.name) CheckNameFree();
    while (const std::optional<TarEntry> entry = reader_.Next()) Accept(*entry);
    if (snapshots_.empty()) {
      Throw(ErrorKind::kSnapshotIntegrity, "{} contains no snapshot; export the snapshot again",
            spec_.archive.native());
    }
    CheckClaimed();
    const std::vector<IncomingSnapshot*> order = snapshots_.InOrder();
    std::vector<std::string> needed;
    if (layout_.Get() != Layout::kLegacy) needed = CheckInventory(order);
    ArrivedImages images(stage_->path() / kStagedImages, image_files_, spec_.cache_dir);
    images.Check(silent_, ImagesOf(order));
    FindPresent(order);
    CheckBacking(spec_, order, needed, image_files_);
    meter_.Finish();
    ctx_.Check();
    Promote(order, images);
    return ArtifactsOf(order);
  }

 private:
  void Accept(const TarEntry& entry) {
    ctx_.Check();
    if (++entries_ > kMaxEntries) {
      RefuseExcess(entry.path, "exceeds the limit of " + std::to_string(kMaxEntries) + " entries");
    }
    if (!paths_.insert(entry.path).second) RefuseEntry(entry.path, "occurs twice");
    if (entry.is_directory) return AcceptDirectory(entry);
    const auto path = ParseMemberPath(entry.path);
    if (!path) RefuseEntry(entry.path, "is not a path of a snapshot archive");
    Narrow(entry, path->in_legacy, path->in_inventory, path->in_layered);
    switch (path->kind) {
      case MemberKind::kManifest:
        return AcceptManifest(entry, *path);
      case MemberKind::kMetadata:
        return AcceptMetadata(entry, *path);
      case MemberKind::kPayload:
        return AcceptPayload(entry, *path);
      case MemberKind::kImageMetadata:
      case MemberKind::kImageObject:
        return AcceptImageFile(entry, *path);
      case MemberKind::kInventory:
        inventory_ = receiver_.ReadText(entry, MemberKind::kInventory, kMaxInventoryBytes, nullptr);
    }
  }

  void Narrow(const TarEntry& entry, bool legacy, bool inventory, bool layered) {
    if (layout_.Narrow(legacy, inventory, layered)) return;
    RefuseEntry(entry.path, "belongs to a different layout than the entries before it");
  }

  // Accepts entries for the directories of members, as releases of the manifest generation do.
  void AcceptDirectory(const TarEntry& entry) {
    std::string_view path = entry.path;
    if (path.ends_with('/')) path.remove_suffix(1);
    const bool known = path == "cache" || path == "cache/manifests" || path == "cache/fsmeta" ||
                       path == "cache/vmdk" || path == "cache/layers" ||
                       ParseMemberPath(std::string(path) + "/manifest.json");
    if (!known || entry.size != 0 || reader_.Read()) {
      RefuseEntry(entry.path, "is an unexpected directory");
    }
    Narrow(entry, true, false, false);
  }

  void AcceptManifest(const TarEntry& entry, const MemberPath& path) {
    Member member;
    const std::string bytes =
        receiver_.ReadText(entry, MemberKind::kManifest, artifact::kMaxManifestBytes, &member);
    IncomingSnapshot& snapshot = snapshots_.Add(layout_.Get(), path, entry.path, bytes);
    MakeStage();
    CheckTarget(snapshot);
    base::MakeDirectoryAt(stage_->fd(), snapshot.directory);
    WriteText(snapshot, std::string(ManifestFileName(snapshot.manifest.form)), bytes);
    member.owner = snapshot.id;
    members_.push_back(std::move(member));
    if (const auto metadata = metadata_.find(snapshot.directory); metadata != metadata_.end()) {
      AddMetadata(snapshot, metadata->second.first, metadata->second.second);
      metadata_.erase(metadata);
    }
    ClaimArrived(snapshot);
  }

  // Checks whether the directory to which the snapshot would be imported exists. If it holds the
  // same snapshot, that counts as present.
  // Throws kSnapshotAlreadyExists if it holds anything else, unless the head is imported under
  // another name.
  void CheckTarget(IncomingSnapshot& snapshot) const {
    const auto type = base::TypeAt(stage_->parent_fd(), snapshot.directory);
    if (type == base::EntryType::kAbsent) return;
    const std::filesystem::path path = spec_.destination / snapshot.directory;
    std::optional<artifact::Manifest> manifest;
    if (type == base::EntryType::kDirectory) manifest = artifact::ReadManifest(path);
    if (!manifest || manifest->digest != snapshot.manifest.digest) {
      // This may be the head, which gets another name. For any other snapshot, publishing fails.
      if (spec_.name) return;
      RefuseExisting(snapshot.directory);
    }
    snapshot.present = Artifact{.path = path, .manifest = *std::move(manifest), .member = {}};
  }

  void AcceptMetadata(const TarEntry& entry, const MemberPath& path) {
    Member member;
    std::string bytes =
        receiver_.ReadText(entry, MemberKind::kMetadata, artifact::kMaxManifestBytes, &member);
    member.owner = path.snapshot;
    members_.push_back(std::move(member));
    if (IncomingSnapshot* const snapshot = snapshots_.Find(path.snapshot)) {
      AddMetadata(*snapshot, entry.path, bytes);
    } else {
      metadata_[path.snapshot] = {entry.path, std::move(bytes)};
    }
  }

  void AddMetadata(IncomingSnapshot& snapshot, const std::string& path, const std::string& bytes) {
    snapshot.manifest.labels = artifact::ParseLayeredMetadata(bytes, path);
    WriteText(snapshot, "metadata.json", bytes);
  }

  void AcceptPayload(const TarEntry& entry, const MemberPath& path) {
    const std::vector<IncomingSnapshot*> owners = snapshots_.Awaiting(path);
    ArrivedPayload payload{.path = entry.path, .size = entry.size, .member = members_.size()};
    std::optional<std::string> algorithm;
    if (owners.empty()) {
      MakeStage();
      payload.early = true;
      payload.file = stage_->path() / kStagedEarly / std::to_string(members_.size());
    } else {
      const IncomingSnapshot& owner = *owners.front();
      const artifact::Layer& layer = LayerOf(owner, path.file);
      CheckSize(payload, layer);
      if (layer.integrity) algorithm = layer.integrity->algorithm;
      // Another snapshot of a 0.7 archive, which the receiver does not have, may share the layer.
      const bool keep = !owner.present || layout_.Get() == Layout::kLayered;
      if (keep) payload.file = stage_->path() / owner.directory / path.file;
    }
    Member member = receiver_.ReceiveFile(
        entry, MemberKind::kPayload,
        payload.file.empty() ? std::nullopt : std::optional(payload.file), algorithm, FreeSpace());
    payload.integrity = member.integrity;
    members_.push_back(std::move(member));
    for (IncomingSnapshot* owner : owners) Claim(*owner, path.file, payload);
    payloads_.emplace(PayloadKey(path.snapshot, path.file), std::move(payload));
  }

  // Assigns to the snapshot the disks that arrived before its manifest.
  void ClaimArrived(IncomingSnapshot& snapshot) {
    const std::set<std::string> awaited = snapshot.awaited;
    const bool layered = layout_.Get() == Layout::kLayered;
    for (const std::string& file : awaited) {
      const auto payload = payloads_.find(PayloadKey(layered ? "" : snapshot.directory, file));
      if (payload != payloads_.end()) Claim(snapshot, file, payload->second);
    }
  }

  static std::string PayloadKey(const std::string& directory, const std::string& file) {
    return directory + "/" + file;
  }

  static const artifact::Layer& LayerOf(const IncomingSnapshot& snapshot, const std::string& file) {
    const auto& layers = snapshot.manifest.layers;
    return *std::find_if(layers.begin(), layers.end(),
                         [&](const artifact::Layer& candidate) { return candidate.file == file; });
  }

  static void CheckSize(const ArrivedPayload& payload, const artifact::Layer& layer) {
    if (!layer.file_bytes || payload.size == *layer.file_bytes) return;
    RefuseEntry(payload.path, "has " + std::to_string(payload.size) + " bytes, but its manifest " +
                                  "records " + std::to_string(*layer.file_bytes));
  }

  // Assigns a disk that has arrived to a snapshot that waits for it, after checking it.
  void Claim(IncomingSnapshot& snapshot, const std::string& file, ArrivedPayload& payload) {
    const artifact::Layer& layer = LayerOf(snapshot, file);
    snapshot.awaited.erase(file);
    Member& member = members_.at(payload.member);
    const std::filesystem::path target = stage_->path() / snapshot.directory / file;
    if (payload.layer) {
      // A layer that several 0.7 snapshots share is in the archive only once.
      if (layer.integrity != payload.layer->integrity ||
          layer.file_bytes != payload.layer->file_bytes || layer.format != payload.layer->format) {
        RefuseEntry(payload.path, "is recorded differently by two snapshots");
      }
      member.owner.reset();
      base::MakeDirectory(target.parent_path());
      return LinkOrCopy(payload.file, target);
    }
    CheckSize(payload, layer);
    CheckIntegrity(payload, layer);
    member.integrity = layer.integrity;
    member.owner = snapshot.id;
    payload.layer = layer;
    if (payload.early) MoveStaged(payload, target);
    if (layer.format == DiskFormat::kQcow2 && !payload.file.empty()) {
      const std::string backing = CheckQcow2(payload);
      if (snapshot.manifest.layers.size() == 1) snapshot.backing_file = backing;
    }
  }

  void CheckIntegrity(ArrivedPayload& payload, const artifact::Layer& layer) {
    if (!layer.integrity) return;
    const std::string& algorithm = layer.integrity->algorithm;
    if (!payload.integrity || payload.integrity->algorithm != algorithm) {
      receiver_.CountHashed(payload.path, payload.size, algorithm);
      const base::Entry file = OpenStaged(payload.file);
      payload.integrity =
          artifact::ComputeIntegrity(silent_, file.fd.get(), payload.size, algorithm);
    }
    if (payload.integrity == layer.integrity) return;
    RefuseEntry(payload.path, "differs from its manifest: expected " + layer.integrity->digest +
                                  ", found " + payload.integrity->digest);
  }

  static base::Entry OpenStaged(const std::filesystem::path& path) {
    const UniqueFd dir = base::OpenDirectory(path.parent_path());
    return base::OpenEntryAt(dir.get(), path.filename());
  }

  void LinkOrCopy(const std::filesystem::path& file, const std::filesystem::path& target) const {
    const UniqueFd dir = base::OpenDirectory(target.parent_path());
    if (base::TryLinkFile(file, dir.get(), target.filename())) return;
    const base::Entry source = OpenStaged(file);
    const UniqueFd copy = base::CreateFileAt(dir.get(), target.filename(), 0666);
    disk::CopySparse(silent_, source.fd.get(), copy.get(), base::StampOf(source.fd.get()).size);
  }

  static void MoveStaged(ArrivedPayload& payload, const std::filesystem::path& target) {
    const UniqueFd from = base::OpenDirectory(payload.file.parent_path());
    const UniqueFd to = base::MakeDirectory(target.parent_path());
    const base::MoveResult result =
        base::MoveFileAt(from.get(), payload.file.filename(), to.get(), target.filename());
    if (result != base::MoveResult::kMoved) {
      Throw(ErrorKind::kIO, "cannot move {} to {}: {}", payload.file.native(), target.native(),
            result == base::MoveResult::kTargetExists
                ? "another program created a file there; try again"
                : "the directory of the import is not on a single file system; import elsewhere");
    }
    payload.file = target;
    payload.early = false;
  }

  // Checks a qcow2 disk. Returns the name of its backing file; empty if it has none.
  std::string CheckQcow2(const ArrivedPayload& payload) const {
    const base::Entry file = OpenStaged(payload.file);
    const disk::Qcow2Header header = disk::CheckQcow2(ctx_, file.fd.get(), payload.path);
    disk::CheckBackingName(header, payload.path);
    return header.backing_file;
  }

  // Throws kSnapshotIntegrity unless all disks and metadata that arrived belong to a snapshot.
  void CheckClaimed() const {
    for (const auto& [key, payload] : payloads_) {
      if (!payload.layer) RefuseEntry(payload.path, "belongs to no manifest of the archive");
    }
    for (const auto& [directory, metadata] : metadata_) {
      RefuseEntry(metadata.first, "belongs to no manifest of the archive");
    }
  }

  void AcceptImageFile(const TarEntry& entry, const MemberPath& path) {
    if (image_files_.size() >= kMaxImageFiles) {
      RefuseExcess(entry.path,
                   "exceeds the limit of " + std::to_string(kMaxImageFiles) + " image files");
    }
    MakeStage();
    // These are read into memory: metadata is parsed, and a vmdk is parsed and rewritten.
    if (path.kind == MemberKind::kImageMetadata || path.file.starts_with("vmdk/")) {
      receiver_.CountMetadata(entry, artifact::kMaxManifestBytes);
    }
    members_.push_back(receiver_.ReceiveFile(entry, path.kind,
                                             stage_->path() / kStagedImages / path.file,
                                             std::string(artifact::kSha256), FreeSpace()));
    image_files_.push_back(path.file);
  }

  // Creates the stage when the first member that needs it arrives, so that most archives that are
  // refused leave no trace even for a moment.
  void MakeStage() {
    if (stage_) return;
    stage_.emplace(spec_.destination, base::Stage::Parents::kMake);
  }

  std::optional<std::uint64_t> FreeSpace() const { return base::FreeSpace(stage_->fd()); }

  void CheckNameFree() const {
    const UniqueFd dir = base::TryOpenDirectory(spec_.destination);
    if (!dir || base::TypeAt(dir.get(), *spec_.name) == base::EntryType::kAbsent) return;
    RefuseExisting(*spec_.name);
  }

  [[noreturn]] void RefuseExisting(const std::string& directory) const {
    Throw(ErrorKind::kSnapshotAlreadyExists,
          "{} exists; remove it, or import elsewhere or under another name",
          (spec_.destination / directory).native());
  }

  void WriteText(const IncomingSnapshot& snapshot, const std::string& name,
                 std::string_view bytes) const {
    const base::Entry dir = base::OpenEntryAt(stage_->fd(), snapshot.directory);
    base::WriteNewFileAt(dir.fd.get(), name, bytes, 0666);
  }

  std::vector<std::string> CheckInventory(const std::vector<IncomingSnapshot*>& order) {
    if (!inventory_) {
      Throw(ErrorKind::kSnapshotIntegrity,
            "the archive lacks its inventory, {}; copy or export it again", kInventoryPath);
    }
    Inventory arrived{.layout = layout_.Get(),
                      .head = order.back()->id,
                      .suggested_name = {},
                      .with_image = !image_files_.empty(),
                      .needed = {},
                      .snapshots = {},
                      .members = std::move(members_)};
    for (const IncomingSnapshot* snapshot : order) {
      arrived.snapshots.push_back(
          {snapshot->id, snapshot->manifest_path, snapshot->manifest_digest});
    }
    return archive::CheckInventory(*inventory_, arrived);
  }

  static std::vector<Image> ImagesOf(const std::vector<IncomingSnapshot*>& order) {
    std::vector<Image> images;
    images.reserve(order.size());
    for (const IncomingSnapshot* snapshot : order) images.push_back(snapshot->manifest.image);
    return images;
  }

  // Finds the snapshots that the receiver has. Parents among them are used instead of those in the
  // archive.
  // Throws kSnapshotAlreadyExists if the head is among them.
  void FindPresent(const std::vector<IncomingSnapshot*>& order) const {
    for (IncomingSnapshot* snapshot : order) {
      if (snapshot->present) {
        CheckPresent(*snapshot);
      } else if (spec_.find_present) {
        snapshot->present = spec_.find_present(snapshot->manifest.digest);
      }
    }
    const IncomingSnapshot& head = *order.back();
    if (!head.present) return;
    const auto& member = head.present->member;
    Throw(ErrorKind::kSnapshotAlreadyExists,
          "snapshot {} already exists, named '{}', at {}; use it, or remove it first",
          head.manifest.digest,
          base::Quoted((member ? member->group + ":" : "") + head.present->Name()),
          head.present->path.native());
  }

  // Opens the snapshot that already exists where it would be imported to: its manifest is sound,
  // but its disk may be missing. Throws kSnapshotAlreadyExists if it cannot be opened.
  void CheckPresent(IncomingSnapshot& snapshot) const {
    try {
      snapshot.present = artifact::OpenArtifactAt(snapshot.present->path);
    } catch (const Error&) {
      RefuseExisting(snapshot.directory);
    }
  }

  void Promote(const std::vector<IncomingSnapshot*>& order, ArrivedImages& images) {
    if (spec_.name) RenameHead(*order.back());
    std::vector<std::string> names;
    for (const IncomingSnapshot* snapshot : order) {
      if (snapshot->present) continue;
      silent_.Check();
      base::SyncDirectories(base::OpenEntryAt(stage_->fd(), snapshot->directory).fd.get());
      names.push_back(snapshot->directory);
    }
    silent_.Check();
    if (const auto taken = stage_->PublishEntries(names)) RefuseExisting(*taken);
    try {
      images.Install(silent_);
    } catch (...) {
      stage_->TakeBack(names);
      throw;
    }
  }

  void RenameHead(IncomingSnapshot& head) const {
    if (*spec_.name == head.directory) return;
    const auto result = base::MoveFileAt(stage_->fd(), head.directory, stage_->fd(), *spec_.name);
    // Another snapshot of the archive has that name.
    if (result != base::MoveResult::kMoved) RefuseExisting(*spec_.name);
    head.directory = *spec_.name;
  }

  std::vector<Artifact> ArtifactsOf(const std::vector<IncomingSnapshot*>& order) const {
    std::vector<Artifact> artifacts;
    artifacts.reserve(order.size());
    for (const IncomingSnapshot* snapshot : order) {
      artifacts.push_back(snapshot->present
                              ? *snapshot->present
                              : Artifact{.path = spec_.destination / snapshot->directory,
                                         .manifest = snapshot->manifest,
                                         .member = std::nullopt});
    }
    return artifacts;
  }

  const Context& ctx_;
  const Context silent_;  // The same without progress, which meter_ reports.
  const ImportSpec& spec_;
  base::InputStream file_;
  base::ProgressMeter meter_;
  ArchiveInput input_;
  TarReader reader_;
  std::optional<base::Stage> stage_;

  LayoutGuess layout_;
  MemberReceiver receiver_;
  std::size_t entries_ = 0;
  std::set<std::string> paths_;
  IncomingSnapshots snapshots_;
  std::map<std::string, ArrivedPayload> payloads_;  // By PayloadKey.
  // The metadata.json files that arrived before their manifests, by snapshot directory: the path in
  // the archive and the content.
  std::map<std::string, std::pair<std::string, std::string>> metadata_;
  std::vector<Member> members_;
  std::vector<std::string> image_files_;
  std::optional<std::string> inventory_;
};

}  // namespace

std::vector<Artifact> ImportArchive(const Context& ctx, const ImportSpec& spec) {
  ctx.Check();
  return Importer(ctx, spec).Run();
}

}  // namespace msb::archive
