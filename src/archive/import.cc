// SPDX-License-Identifier: Apache-2.0

#include "src/archive/import.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "src/archive/incoming.h"
#include "src/archive/inventory.h"
#include "src/archive/layout_guess.h"
#include "src/archive/limits.h"
#include "src/archive/receiver.h"
#include "src/base/file.h"
#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/sparse_copy.h"

namespace msb::archive {
namespace {

using artifact::Artifact;
using artifact::Integrity;
using base::Throw;
using base::UniqueFd;

// The directory in the stage for disks that arrived before their manifests. The names of the
// artifacts beside it do not begin with a dot.
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

// Throws kSnapshotIntegrity for an entry that does not belong in a snapshot archive.
[[noreturn]] void RefuseForeign(const std::string& path, std::string_view problem) {
  Throw(ErrorKind::kSnapshotIntegrity,
        "archive entry '{}' {}; give an archive that Snapshot::Export wrote; unpack any other "
        "archive, and create a sandbox from a disk image in it with WithImage",
        base::Quoted(path), problem);
}

class Importer {
 public:
  Importer(const Context& ctx, const std::filesystem::path& archive, const IntakeSpec& spec)
      : ctx_(ctx),
        silent_(ctx.WithProgress({})),
        archive_(archive),
        file_(archive),
        meter_(ctx, "import", file_.size()),
        input_(ctx, file_, meter_),
        reader_(input_),
        intake_(ctx, spec, ArchiveWords()),
        snapshots_(intake_.snapshots()),
        receiver_(silent_, reader_, layout_, spec.destination) {}

  std::vector<Artifact> Run() {
    intake_.CheckNameFree();
    while (const std::optional<TarEntry> entry = reader_.Next()) Accept(*entry);
    if (snapshots_.empty()) {
      Throw(ErrorKind::kSnapshotIntegrity, "{} contains no snapshot; export the snapshot again",
            archive_.native());
    }
    CheckClaimed();
    snapshots_.CheckArrived();
    const std::vector<IncomingSnapshot*> order = snapshots_.InOrder();
    std::vector<std::string> needed;
    if (layout_.Get() != Layout::kLegacy) needed = CheckInventory(order);
    intake_.CheckImages(order);
    if (intake_.FindPresent(order) == nullptr) intake_.CheckBacking(order, needed);
    meter_.Finish();
    ctx_.Check();
    // If the head is present, this still adds its image to the cache, which may lack it.
    std::vector<Artifact> artifacts = intake_.Publish(order);
    if (const auto& head = order.back()->present) RefusePresent(*head);
    return artifacts;
  }

 private:
  void Accept(const TarEntry& entry) {
    ctx_.Check();
    if (const auto excess = budget_.AddEntry()) RefuseExcess(entry.path, *excess);
    if (!paths_.insert(entry.path).second) RefuseEntry(entry.path, "occurs twice");
    if (entry.is_directory) return AcceptDirectory(entry);
    const auto path = ParseMemberPath(entry.path);
    if (!path) RefuseForeign(entry.path, "is not a path of a snapshot archive");
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
      RefuseForeign(entry.path, "is an unexpected directory");
    }
    Narrow(entry, true, false, false);
  }

  void AcceptManifest(const TarEntry& entry, const MemberPath& path) {
    Member member;
    const std::string bytes = ReadMetadata(entry, MemberKind::kManifest, member);
    IncomingSnapshot& snapshot = intake_.Add(layout_.Get(), path.snapshot, entry.path, bytes);
    member.owner = snapshot.id;
    members_.push_back(std::move(member));
    if (const auto metadata = metadata_.find(snapshot.directory); metadata != metadata_.end()) {
      AddMetadata(snapshot, metadata->second.first, metadata->second.second);
      metadata_.erase(metadata);
    }
    ClaimArrived(snapshot);
  }

  void AcceptMetadata(const TarEntry& entry, const MemberPath& path) {
    Member member;
    std::string bytes = ReadMetadata(entry, MemberKind::kMetadata, member);
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
    intake_.WriteText(snapshot, "metadata.json", bytes);
  }

  void AcceptPayload(const TarEntry& entry, const MemberPath& path) {
    const std::vector<IncomingSnapshot*> owners = snapshots_.Awaiting(path);
    ArrivedPayload payload{.path = entry.path, .size = entry.size, .member = members_.size()};
    std::optional<std::string> algorithm;
    if (owners.empty()) {
      payload.early = true;
      payload.file = intake_.stage().path() / kStagedEarly / std::to_string(members_.size());
    } else {
      const IncomingSnapshot& owner = *owners.front();
      const artifact::Layer& layer = LayerOf(owner, path.file);
      intake_.CheckSize(payload.path, payload.size, layer);
      if (layer.integrity) {
        algorithm = layer.integrity->algorithm;
        CountHashed(payload.path, payload.size, *algorithm);
      }
      // Another snapshot of a 0.7 archive, which the receiver does not have, may share the layer.
      const bool keep = !owner.present || layout_.Get() == Layout::kLayered;
      if (keep) payload.file = intake_.DiskPath(owner, path.file);
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

  // Assigns a disk that has arrived to a snapshot that waits for it, after checking it.
  void Claim(IncomingSnapshot& snapshot, const std::string& file, ArrivedPayload& payload) {
    const artifact::Layer& layer = LayerOf(snapshot, file);
    Member& member = members_.at(payload.member);
    const std::filesystem::path target = intake_.DiskPath(snapshot, file);
    if (payload.layer) {
      // A layer that several 0.7 snapshots share is in the archive only once.
      if (layer.integrity != payload.layer->integrity ||
          layer.file_bytes != payload.layer->file_bytes || layer.format != payload.layer->format) {
        RefuseEntry(payload.path, "is recorded differently by two snapshots");
      }
      member.owner.reset();
      snapshot.awaited.erase(file);
      base::MakeDirectory(target.parent_path());
      return LinkOrCopy(payload.file, target);
    }
    intake_.CheckSize(payload.path, payload.size, layer);
    CountHashed(payload, layer);
    if (payload.early) MoveStaged(payload, target);
    intake_.AcceptDisk(snapshot, file,
                       {payload.path, payload.size, payload.file, payload.integrity});
    member.integrity = layer.integrity;
    member.owner = snapshot.id;
    payload.layer = layer;
  }

  // Counts the disk if it must be read again for its integrity, because it arrived before the
  // manifest that records the algorithm.
  void CountHashed(const ArrivedPayload& payload, const artifact::Layer& layer) {
    if (!layer.integrity) return;
    const std::string& algorithm = layer.integrity->algorithm;
    if (payload.integrity && payload.integrity->algorithm == algorithm) return;
    CountHashed(payload.path, payload.size, algorithm);
  }

  void CountHashed(const std::string& path, std::uint64_t size, std::string_view algorithm) {
    if (const auto excess = budget_.AddHashed(size, algorithm)) RefuseExcess(path, *excess);
  }

  std::string ReadMetadata(const TarEntry& entry, MemberKind kind, Member& member) {
    CountMetadata(entry);
    return receiver_.ReadText(entry, kind, artifact::kMaxManifestBytes, &member);
  }

  void CountMetadata(const TarEntry& entry) {
    MemberReceiver::CheckInMemory(entry, artifact::kMaxManifestBytes);
    if (const auto excess = budget_.AddMetadata(entry.size)) RefuseExcess(entry.path, *excess);
  }

  void LinkOrCopy(const std::filesystem::path& file, const std::filesystem::path& target) const {
    const UniqueFd dir = base::OpenDirectory(target.parent_path());
    if (base::TryLinkFile(file, dir.get(), target.filename())) return;
    const UniqueFd source = base::OpenRegularFile(file, ErrorKind::kIO);
    const UniqueFd copy = base::CreateFileAt(dir.get(), target.filename(), 0666);
    disk::CopySparse(silent_, source.get(), copy.get(), base::StampOf(source.get()).size);
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
    if (const auto excess = budget_.AddImageFile()) RefuseExcess(entry.path, *excess);
    // These are read into memory: metadata is parsed, and a vmdk is parsed and rewritten.
    if (IsImageMetadata(path.file)) CountMetadata(entry);
    CountHashed(entry.path, entry.size, artifact::kSha256);
    const std::filesystem::path target = intake_.AddImageFile(path.file);
    members_.push_back(receiver_.ReceiveFile(entry, path.kind, target,
                                             std::string(artifact::kSha256), FreeSpace()));
  }

  std::optional<std::uint64_t> FreeSpace() { return base::FreeSpace(intake_.stage().fd()); }

  std::vector<std::string> CheckInventory(const std::vector<IncomingSnapshot*>& order) {
    if (!inventory_) {
      Throw(ErrorKind::kSnapshotIntegrity,
            "the archive lacks its inventory, {}; copy or export it again", kInventoryPath);
    }
    Inventory arrived{.layout = layout_.Get(),
                      .head = order.back()->id,
                      .suggested_name = {},
                      .with_image = !intake_.image_files().empty(),
                      .needed = {},
                      .snapshots = {},
                      .members = std::move(members_)};
    for (const IncomingSnapshot* snapshot : order) {
      arrived.snapshots.push_back(
          {snapshot->id, snapshot->manifest_path, snapshot->manifest_digest});
    }
    return archive::CheckInventory(*inventory_, arrived);
  }

  const Context& ctx_;
  const Context silent_;  // The same without progress, which meter_ reports.
  const std::filesystem::path& archive_;
  base::InputStream file_;
  base::ProgressMeter meter_;
  ArchiveInput input_;
  TarReader reader_;
  Intake intake_;
  IncomingSnapshots& snapshots_;
  LayoutGuess layout_;
  MemberReceiver receiver_;
  ArchiveBudget budget_;
  std::set<std::string> paths_;
  std::map<std::string, ArrivedPayload> payloads_;  // By PayloadKey.
  // The metadata.json files that arrived before their manifests, by snapshot directory: the path in
  // the archive and the content.
  std::map<std::string, std::pair<std::string, std::string>> metadata_;
  std::vector<Member> members_;
  std::optional<std::string> inventory_;
};

}  // namespace

std::vector<Artifact> ImportArchive(const Context& ctx, const std::filesystem::path& archive,
                                    const IntakeSpec& spec) {
  ctx.Check();
  return Importer(ctx, archive, spec).Run();
}

}  // namespace msb::archive
