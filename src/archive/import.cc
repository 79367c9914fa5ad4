#include "src/archive/import.h"

#include <algorithm>
#include <optional>
#include <set>

#include "src/archive/entry_stream.h"
#include "src/archive/image_files.h"
#include "src/archive/incoming.h"
#include "src/archive/inventory.h"
#include "src/archive/sparse_map.h"
#include "src/base/digest.h"
#include "src/base/new_directory.h"
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

// What manifests and inventories may come to, in all and per byte of the archive, bytes: they are
// held in memory.
constexpr std::uint64_t kMaxMetadataBytes = 48 << 20;
constexpr std::uint64_t kFreeMetadataBytes = artifact::kMaxManifestBytes + kMaxInventoryBytes;
constexpr std::uint64_t kMaxMetadataRatio = 200;

// The algorithms of SHA-256 hash holes as the zeros that they read as: that much of all files.
constexpr std::uint64_t kMaxHashedBytes = std::uint64_t{1} << 40;

// In the stage, beside the artifacts; none of them can be called that.
constexpr const char* kStagedImages = "images";

[[noreturn]] void Refuse(const TarEntry& entry, std::string_view problem) {
  Throw(ErrorKind::kSnapshotIntegrity, "the archive's '{}' {}", base::Quoted(entry.path), problem);
}

// Which layouts an archive may still be of, by the paths that have come.
class LayoutGuess {
 public:
  void Narrow(const TarEntry& entry, bool legacy, bool inventory, bool layered) {
    legacy_ &= legacy;
    inventory_ &= inventory;
    layered_ &= layered;
    if (!legacy_ && !inventory_ && !layered_) Refuse(entry, "belongs to no layout of the others");
  }

  // Once a manifest has come, there is only one.
  Layout Get() const {
    if (legacy_) return Layout::kLegacy;
    return inventory_ ? Layout::kInventory : Layout::kLayered;
  }

 private:
  bool legacy_ = true;
  bool inventory_ = true;
  bool layered_ = true;
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
        reader_(input_) {}

  std::vector<Artifact> Run() {
    while (const std::optional<TarEntry> entry = reader_.Next()) Accept(*entry);
    if (snapshots_.empty()) {
      Throw(ErrorKind::kSnapshotIntegrity, "{} holds no snapshot", spec_.archive.native());
    }
    const std::vector<const IncomingSnapshot*> order = snapshots_.InOrder();
    if (layout_.Get() != Layout::kLegacy) CheckInventory(order);
    ArrivedImages images(stage_->path() / kStagedImages, image_files_, spec_.cache_dir);
    images.Check(silent_, ImagesOf(order));
    meter_.Finish();
    ctx_.Check();
    Promote(order, images);
    return ArtifactsOf(order);
  }

 private:
  void Accept(const TarEntry& entry) {
    ctx_.Check();
    if (++entries_ > kMaxEntries) {
      Refuse(entry, "is one entry more than the " + std::to_string(kMaxEntries) + " allowed");
    }
    if (inventory_) Refuse(entry, "follows the inventory, which must be the last");
    if (!paths_.insert(entry.path).second) Refuse(entry, "comes twice");
    if (entry.is_directory) return AcceptDirectory(entry);
    const auto path = ParseMemberPath(entry.path);
    if (!path) Refuse(entry, "is nothing that a snapshot archive has");
    layout_.Narrow(entry, path->in_legacy, path->in_inventory, path->in_layered);
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
        inventory_ = ReadText(entry, MemberKind::kInventory, kMaxInventoryBytes, nullptr);
    }
  }

  // Releases of the manifest generation let the directories of members be entries too.
  void AcceptDirectory(const TarEntry& entry) {
    std::string_view path = entry.path;
    if (path.ends_with('/')) path.remove_suffix(1);
    const bool known = path == "cache" || path == "cache/manifests" || path == "cache/fsmeta" ||
                       path == "cache/vmdk" || path == "cache/layers" ||
                       ParseMemberPath(std::string(path) + "/manifest.json");
    if (!known || entry.size != 0 || reader_.Read()) Refuse(entry, "is no directory of its files");
    layout_.Narrow(entry, true, false, false);
  }

  void AcceptManifest(const TarEntry& entry, const MemberPath& path) {
    Member member;
    const std::string bytes =
        ReadText(entry, MemberKind::kManifest, artifact::kMaxManifestBytes, &member);
    const IncomingSnapshot& snapshot = snapshots_.Add(layout_.Get(), path, entry.path, bytes);
    MakeStage();
    const auto type = base::OpenEntryAt(destination_->fd(), snapshot.directory).type;
    if (type != base::EntryType::kAbsent) RefuseExisting(snapshot.directory);
    base::MakeDirectoryAt(stage_->fd(), snapshot.directory);
    WriteText(snapshot, std::string(ManifestFileName(snapshot.manifest.form)), bytes);
    member.owner = snapshot.id;
    members_.push_back(std::move(member));
  }

  void AcceptMetadata(const TarEntry& entry, const MemberPath& path) {
    Member member;
    const std::string bytes =
        ReadText(entry, MemberKind::kMetadata, artifact::kMaxManifestBytes, &member);
    IncomingSnapshot& snapshot = snapshots_.At(path.snapshot);
    snapshot.manifest.labels = artifact::ParseLayeredMetadata(bytes, entry.path);
    WriteText(snapshot, "metadata.json", bytes);
    member.owner = snapshot.id;
    members_.push_back(std::move(member));
  }

  void CheckQcow2(const TarEntry& entry, const std::filesystem::path& path) {
    const base::UniqueFd dir = base::OpenDirectory(path.parent_path());
    const base::Entry file = base::OpenEntryAt(dir.get(), path.filename());
    disk::CheckBackingName(disk::CheckQcow2(ctx_, file.fd.get(), entry.path), entry.path);
  }

  void AcceptPayload(const TarEntry& entry, const MemberPath& path) {
    const std::vector<IncomingSnapshot*> owners = snapshots_.Arrived(path);
    const IncomingSnapshot& owner = *owners.front();
    const auto& layers = owner.manifest.layers;
    const auto layer =
        std::find_if(layers.begin(), layers.end(),
                     [&](const artifact::Layer& candidate) { return candidate.file == path.file; });
    if (layer->file_bytes && entry.size != *layer->file_bytes) {
      Refuse(entry, "has another size than its manifest says");
    }
    const std::filesystem::path target = stage_->path() / owner.directory / path.file;
    Member member =
        Receive(entry, MemberKind::kPayload, target,
                layer->integrity ? std::optional(layer->integrity->algorithm) : std::nullopt);
    if (member.integrity != layer->integrity) {
      Refuse(entry, "is not what was recorded: expected " + layer->integrity->digest + ", found " +
                        member.integrity->digest);
    }
    if (layer->format == DiskFormat::kQcow2) CheckQcow2(entry, target);
    // A layer that several snapshots stand on comes once.
    if (owners.size() == 1) member.owner = owner.id;
    members_.push_back(std::move(member));
    for (auto other = owners.begin() + 1; other != owners.end(); ++other) {
      const auto& same = (*other)->manifest.layers;
      for (const artifact::Layer& candidate : same) {
        if (candidate.file == path.file && (candidate.integrity != layer->integrity ||
                                            candidate.file_bytes != layer->file_bytes)) {
          Refuse(entry, "is recorded differently by two snapshots");
        }
      }
      base::MakeDirectory((stage_->path() / (*other)->directory / path.file).parent_path());
      base::LinkFile(target, stage_->path() / (*other)->directory / path.file);
    }
  }

  void AcceptImageFile(const TarEntry& entry, const MemberPath& path) {
    MakeStage();
    // Texts, of which the metadata is parsed and the vmdk made anew.
    if (path.kind == MemberKind::kImageMetadata || path.file.starts_with("vmdk/")) {
      CountMetadata(entry, artifact::kMaxManifestBytes);
    }
    members_.push_back(Receive(entry, path.kind, stage_->path() / kStagedImages / path.file,
                               std::string(artifact::kSha256)));
    image_files_.push_back(path.file);
  }

  // Made only when something sound has come, so that most of what is refused leaves no trace even
  // for a moment.
  void MakeStage() {
    if (stage_) return;
    destination_.emplace(spec_.destination);
    stage_.emplace(spec_.destination);
  }

  [[noreturn]] void RefuseExisting(const std::string& directory) const {
    Throw(ErrorKind::kSnapshotAlreadyExists, "{} exists; remove it, or import elsewhere",
          (spec_.destination / directory).native());
  }

  void WriteText(const IncomingSnapshot& snapshot, const std::string& name,
                 std::string_view bytes) const {
    const base::Entry dir = base::OpenEntryAt(stage_->fd(), snapshot.directory);
    base::WriteNewFileAt(dir.fd.get(), name, bytes, 0666);
  }

  void CountMetadata(const TarEntry& entry, std::size_t limit) {
    if (entry.is_sparse || entry.size > limit) {
      Refuse(entry, "is longer than " + std::to_string(limit) + " bytes");
    }
    metadata_bytes_ += entry.size;
    if (metadata_bytes_ > kMaxMetadataBytes ||
        metadata_bytes_ > kFreeMetadataBytes + kMaxMetadataRatio * input_.bytes_read()) {
      Refuse(entry, "makes manifests that are too long for this archive");
    }
  }

  MemberHasher HasherFor(const TarEntry& entry, MemberKind kind) const {
    return {KindName(kind), entry.path, entry.stored, entry.size, entry.ranges};
  }

  Member Describe(const TarEntry& entry, MemberKind kind) const {
    return {.path = entry.path,
            .kind = kind,
            .encoded_size = entry.stored,
            .apparent_size = entry.size,
            .ranges = entry.ranges};
  }

  // A member that is read whole. member, if not null, becomes its description.
  std::string ReadText(const TarEntry& entry, MemberKind kind, std::size_t limit, Member* member) {
    CountMetadata(entry, limit);
    std::string text;
    while (const auto piece = reader_.Read()) {
      text.append(reinterpret_cast<const char*>(piece->bytes.data()), piece->bytes.size());
    }
    if (member != nullptr) {
      *member = Describe(entry, kind);
      member->integrity = {std::string(artifact::kSha256), base::Sha256Digest(text)};
      MemberHasher hasher = HasherFor(entry, kind);
      hasher.Update(std::as_bytes(std::span(text)));
      member->transport_digest = hasher.Finish();
    }
    return text;
  }

  // Writes a member to the new file target, whose directory is made if need be.
  Member Receive(const TarEntry& entry, MemberKind kind, const std::filesystem::path& target,
                 const std::optional<std::string>& algorithm) {
    CheckLimits(entry, algorithm);
    const UniqueFd dir = base::MakeDirectory(target.parent_path());
    const UniqueFd fd = base::CreateFileAt(dir.get(), target.filename(), 0666);
    base::Resize(fd.get(), entry.size);
    Member member = Describe(entry, kind);
    std::unique_ptr<artifact::IntegrityHasher> integrity;
    if (algorithm) integrity = artifact::MakeIntegrityHasher(silent_, *algorithm, entry.size);
    MemberHasher hasher = HasherFor(entry, kind);
    const bool hashed = layout_.Get() != Layout::kLegacy;
    disk::RegionConsumer nothing;
    disk::RegionWriter writer(fd.get(), integrity ? integrity->consumer() : nothing);
    EntryStream stream(reader_, entry.is_sparse, hashed ? &hasher : nullptr);
    base::ProgressMeter written(silent_, "import", 0);
    disk::ScanStream(stream, entry.size, written, writer);
    if (integrity) member.integrity = {*algorithm, integrity->Finish()};
    if (hashed) member.transport_digest = hasher.Finish();
    if (layout_.Get() != Layout::kLayered) member.ranges = {};
    // Image files are flushed when they are installed.
    if (kind == MemberKind::kPayload) base::Sync(fd.get());
    return member;
  }

  void CheckLimits(const TarEntry& entry, const std::optional<std::string>& algorithm) {
    if (algorithm && *algorithm != artifact::kFileMerkle) hashed_bytes_ += entry.size;
    if (hashed_bytes_ > kMaxHashedBytes) Refuse(entry, "is more than can be hashed of an archive");
    // The maps of all entries are kept for the inventory, if it lists them.
    if (layout_.Get() == Layout::kLayered) ranges_ += entry.ranges.size();
    if (ranges_ > kMaxSparseRanges) Refuse(entry, "has more ranges than an inventory can list");
    const std::uint64_t free = base::FreeSpace(stage_->fd());
    if (entry.size > free) {
      Throw(ErrorKind::kSnapshotIntegrity,
            "the archive's '{}' has {} bytes, more than the {} bytes that are free in {}",
            base::Quoted(entry.path), entry.size, free, spec_.destination.native());
    }
  }

  void CheckInventory(const std::vector<const IncomingSnapshot*>& order) {
    if (!inventory_) {
      Throw(ErrorKind::kSnapshotIntegrity, "the archive ends without its inventory, {}",
            kInventoryPath);
    }
    Inventory arrived{.layout = layout_.Get(),
                      .head = order.back()->id,
                      .suggested_name = {},
                      .with_image = !image_files_.empty(),
                      .snapshots = {},
                      .members = std::move(members_)};
    for (const IncomingSnapshot* snapshot : order) {
      arrived.snapshots.push_back(
          {snapshot->id, snapshot->manifest_path, snapshot->manifest_digest});
    }
    archive::CheckInventory(*inventory_, arrived);
  }

  static std::vector<vmm::Image> ImagesOf(const std::vector<const IncomingSnapshot*>& order) {
    std::vector<vmm::Image> images;
    images.reserve(order.size());
    for (const IncomingSnapshot* snapshot : order) images.push_back(snapshot->manifest.image);
    return images;
  }

  void Promote(const std::vector<const IncomingSnapshot*>& order, ArrivedImages& images) {
    std::vector<std::string> names;
    for (const IncomingSnapshot* snapshot : order) {
      base::SyncDirectories(base::OpenEntryAt(stage_->fd(), snapshot->directory).fd.get());
      names.push_back(snapshot->directory);
    }
    if (const auto taken = stage_->PublishEntries(names)) RefuseExisting(*taken);
    try {
      images.Install(silent_);
    } catch (...) {
      stage_->TakeBack(names);
      throw;
    }
    destination_->Keep();
  }

  std::vector<Artifact> ArtifactsOf(const std::vector<const IncomingSnapshot*>& order) const {
    std::vector<Artifact> artifacts;
    artifacts.reserve(order.size());
    for (const IncomingSnapshot* snapshot : order) {
      artifacts.push_back({.path = spec_.destination / snapshot->directory,
                           .manifest = snapshot->manifest,
                           .member = std::nullopt});
    }
    return artifacts;
  }

  const Context& ctx_;
  const Context silent_;  // The same without progress, which meter_ makes.
  const ImportSpec& spec_;
  base::InputStream file_;
  base::ProgressMeter meter_;
  ArchiveInput input_;
  TarReader reader_;
  std::optional<base::NewDirectory> destination_;
  std::optional<base::Stage> stage_;

  LayoutGuess layout_;
  std::size_t entries_ = 0;
  std::uint64_t metadata_bytes_ = 0;
  std::uint64_t hashed_bytes_ = 0;
  std::size_t ranges_ = 0;
  std::set<std::string> paths_;
  IncomingSnapshots snapshots_;
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
