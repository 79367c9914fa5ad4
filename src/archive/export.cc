// SPDX-License-Identifier: Apache-2.0

#include "src/archive/export.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "src/archive/byte_sink.h"
#include "src/archive/export_chain.h"
#include "src/archive/image_files.h"
#include "src/archive/inventory.h"
#include "src/archive/limits.h"
#include "src/archive/member_hash.h"
#include "src/archive/sparse_map.h"
#include "src/archive/tar_writer.h"
#include "src/artifact/output_file.h"
#include "src/base/digest.h"
#include "src/base/fork.h"
#include "src/base/regular_file.h"
#include "src/base/space.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

using base::Throw;
using base::UniqueFd;
using disk::Extent;
using disk::Region;

// A file that becomes a member.
struct SourceFile {
  UniqueFd fd;
  base::FileStamp stamp;
  std::string name;  // Its name in messages.
};

SourceFile Opened(UniqueFd fd, std::string name) {
  SourceFile file{std::move(fd), {}, std::move(name)};
  file.stamp = base::StampOf(file.fd.get());
  return file;
}

SourceFile OpenImageFile(const std::filesystem::path& cache_dir, const std::string& file) {
  const std::filesystem::path path = cache_dir / file;
  return Opened(base::OpenRegularFile(path, ErrorKind::kSnapshotImageMissing), path.native());
}

// Writes the data of a file to the open entry of an archive, and hashes the bytes that the entry
// stores.
class EntryContent : public disk::RegionConsumer {
 public:
  // hasher may be null. If dense is true, the entry stores holes too, as zeros.
  EntryContent(const Context& ctx, TarWriter& tar, MemberHasher* hasher, bool dense)
      : ctx_(ctx), tar_(tar), hasher_(hasher), dense_(dense) {}

  // Makes other receive the same data.
  void Tee(disk::RegionConsumer& other) { other_ = &other; }

  void Process(const Region& region) override {
    if (other_ != nullptr) other_->Process(region);
  }

  void Commit(const Region& region) override {
    if (other_ != nullptr) other_->Commit(region);
    for (const Extent& extent : region.data) {
      FillUpTo(extent.offset);
      const auto bytes = region.bytes.subspan(extent.offset - region.offset, extent.length);
      if (hasher_ != nullptr) hasher_->Update(bytes);
      tar_.Write(bytes);
      position_ = extent.end();
    }
  }

  // Writes the zeros up to offset if the entry is dense. The caller must call it at the end with
  // the size of the file.
  void FillUpTo(std::uint64_t offset) {
    static constinit base::Lazy<std::vector<std::byte>> lazy_zeros;
    const std::vector<std::byte>& zeros =
        lazy_zeros.Get([] { return std::vector<std::byte>(1 << 20); });
    while (dense_ && position_ < offset) {
      ctx_.Check();
      const std::uint64_t step = std::min<std::uint64_t>(offset - position_, zeros.size());
      tar_.WriteZeros(step);
      if (hasher_ != nullptr) hasher_->Update(std::span(zeros).first(step));
      position_ += step;
    }
  }

 private:
  const Context& ctx_;
  TarWriter& tar_;
  MemberHasher* hasher_;
  disk::RegionConsumer* other_ = nullptr;
  const bool dense_;
  std::uint64_t position_ = 0;
};

// Returns the name that the inventory suggests for a snapshot; nothing if the name of its directory
// is not a valid snapshot name.
std::optional<std::string> SuggestedName(const artifact::Artifact& artifact) {
  std::string name = artifact.Name();
  try {
    artifact::CheckSnapshotName(name);
  } catch (const Error&) {
    return std::nullopt;
  }
  return name;
}

class Exporter {
 public:
  Exporter(const Context& ctx, const ExportSpec& spec, const OutgoingChain& chain,
           base::ProgressMeter& meter, ByteSink& sink)
      : ctx_(ctx),
        spec_(spec),
        chain_(chain),
        meter_(meter),
        tar_(sink, chain.snapshots.back().manifest.created.seconds.time_since_epoch().count()) {}

  void Run() {
    for (const OutgoingSnapshot& snapshot : chain_.snapshots) {
      AddManifest(snapshot);
      AddPayload(snapshot);
    }
    for (const std::string& file : chain_.images) AddImageFile(file);
    if (chain_.layout == Layout::kInventory) AddInventory();
    tar_.Finish();
  }

 private:
  void AddManifest(const OutgoingSnapshot& snapshot) {
    Member member{.path = ManifestPath(chain_.layout, snapshot.directory),
                  .kind = MemberKind::kManifest,
                  .owner = snapshot.manifest.digest,
                  .encoded_size = snapshot.bytes.size(),
                  .apparent_size = snapshot.bytes.size()};
    member.integrity = {std::string(artifact::kSha256), base::Sha256Digest(snapshot.bytes)};
    MemberHasher hasher(KindName(member.kind), member.path, member.encoded_size,
                        member.apparent_size, {});
    hasher.Update(std::as_bytes(std::span(snapshot.bytes)));
    member.transport_digest = hasher.Finish();
    tar_.AddFile(member.path, snapshot.bytes);
    members_.push_back(std::move(member));
  }

  void AddPayload(const OutgoingSnapshot& snapshot) {
    const artifact::Layer& layer = snapshot.manifest.layers.at(0);
    const artifact::Artifact& source = snapshot.source->artifact;
    AddFile({.path = PayloadPath(chain_.layout, snapshot.directory, layer.file),
             .kind = MemberKind::kPayload,
             .owner = snapshot.manifest.digest,
             .integrity = layer.integrity},
            Opened(artifact::OpenLayer(*snapshot.source, 0),
                   (source.path / source.manifest.layers.at(0).file).native()));
  }

  void AddImageFile(const std::string& file) {
    const bool metadata = file.starts_with("manifests/");
    const Member& member =
        AddFile({.path = ImagePath(chain_.layout, file),
                 .kind = metadata ? MemberKind::kImageMetadata : MemberKind::kImageObject},
                OpenImageFile(spec_.cache_dir, file));
    // A disk image is named after the digest of its content.
    const base::Digest found = base::Digest::Require(member.integrity->digest);
    if (IsDiskImageFile(file) && file.find(found.hex()) == std::string::npos) {
      Throw(ErrorKind::kSnapshotIntegrity,
            "{} is damaged: expected the digest in its name, found {}; remove the file and add the "
            "image again",
            (spec_.cache_dir / file).native(), member.integrity->digest);
    }
  }

  bool IsSparse(const Member& member, const SparseMap& map) const {
    if (!map.HasHoles()) return false;
    if (chain_.layout == Layout::kLegacy) return spec_.sparse;
    // Releases read sparse entries for disks only.
    return member.kind == MemberKind::kPayload || member.path.starts_with("images/disks/");
  }

  const Member& AddFile(Member member, const SourceFile& file) {
    const int fd = file.fd.get();
    const auto replaced = base::StampOf(spec_.out);
    if (replaced && replaced->device == file.stamp.device && replaced->inode == file.stamp.inode) {
      Throw(ErrorKind::kInvalidArgument,
            "{} is one of the files to export, so the archive cannot replace it; choose another "
            "path for the archive",
            spec_.out.native());
    }
    const SparseMap map = MapFile(ctx_, fd, file.stamp.size);
    const bool sparse = IsSparse(member, map);
    member.apparent_size = map.size;
    member.encoded_size = sparse ? map.StoredBytes() : map.size;
    if (sparse) {
      member.ranges = map.Listed();
      tar_.BeginSparseFile(member.path, map);
    } else {
      tar_.BeginFile(member.path, map.size);
    }
    const bool hashed = chain_.layout == Layout::kInventory;
    MemberHasher hasher(KindName(member.kind), member.path, member.encoded_size,
                        member.apparent_size, member.ranges);
    EntryContent content(ctx_, tar_, hashed ? &hasher : nullptr, !sparse);
    std::unique_ptr<artifact::IntegrityHasher> integrity;
    if (member.kind != MemberKind::kPayload) {
      integrity = artifact::MakeIntegrityHasher(ctx_, artifact::kSha256, map.size);
      content.Tee(integrity->consumer());
    }
    Scan(file, map, content);
    tar_.EndFile();
    if (integrity) member.integrity = {std::string(artifact::kSha256), integrity->Finish()};
    if (hashed) member.transport_digest = hasher.Finish();
    member.ranges = {};  // No longer needed, and long for a fragmented disk.
    return members_.emplace_back(std::move(member));
  }

  void Scan(const SourceFile& file, const SparseMap& map, EntryContent& content) {
    const auto check_unchanged = [&] {
      base::CheckUnchanged(file.stamp, base::StampOf(file.fd.get()), ErrorKind::kSnapshotIntegrity,
                           file.name, "exported");
    };
    base::ReadUnchanged(check_unchanged, [&] {
      disk::ScanRanges(file.fd.get(), map.size, map.ranges, meter_, content);
      content.FillUpTo(map.size);
    });
  }

  void AddInventory() {
    const OutgoingSnapshot& head = chain_.snapshots.back();
    Inventory inventory{.head = head.manifest.digest,
                        .suggested_name = SuggestedName(head.source->artifact),
                        .with_parents = spec_.with_parents || chain_.snapshots.size() > 1,
                        .with_image = !chain_.images.empty(),
                        .needed = spec_.needed,
                        .snapshots = {},
                        .members = std::move(members_)};
    for (const OutgoingSnapshot& snapshot : chain_.snapshots) {
      inventory.snapshots.push_back({snapshot.manifest.digest,
                                     ManifestPath(chain_.layout, snapshot.directory),
                                     snapshot.manifest.digest});
    }
    tar_.AddFile(kInventoryPath, WriteInventory(std::move(inventory)));
  }

  const Context& ctx_;
  const ExportSpec& spec_;
  const OutgoingChain& chain_;
  base::ProgressMeter& meter_;
  TarWriter tar_;
  std::vector<Member> members_;
};

struct SourceBytes {
  std::uint64_t data = 0;
  std::uint64_t size = 0;  // With the holes.
};

SourceBytes CountSources(const Context& ctx, const ExportSpec& spec,
                         const std::vector<std::string>& images) {
  SourceBytes total;
  const auto add = [&](const SourceFile& file) {
    total.data += disk::CountDataBytes(ctx, file.fd.get(), file.stamp.size);
    total.size += file.stamp.size;
  };
  for (const artifact::OpenedArtifact& opened : spec.chain) {
    add(Opened(artifact::OpenLayer(opened, 0), {}));
  }
  for (const std::string& file : images) add(OpenImageFile(spec.cache_dir, file));
  return total;
}

// An ArchivePlan counts the entries of an archive before they are written.
// Each function throws kUnsupportedOperation if Import would refuse the archive.
class ArchivePlan {
 public:
  ArchivePlan(const ExportSpec& spec, const OutgoingChain& chain) : spec_(spec), chain_(chain) {}

  void Check() {
    for (const OutgoingSnapshot& snapshot : chain_.snapshots) AddSnapshot(snapshot);
    for (const std::string& file : chain_.images) AddImageFile(file);
    if (chain_.layout != Layout::kInventory) return;
    const std::string inventory(kInventoryPath);
    AddEntry(inventory, inventory);
  }

 private:
  void AddSnapshot(const OutgoingSnapshot& snapshot) {
    const artifact::OpenedArtifact& source = *snapshot.source;
    const std::string path = source.artifact.path.native();
    AddEntry(ManifestPath(chain_.layout, snapshot.directory), path);
    Limit(path, budget_.AddMetadata(snapshot.bytes.size()),
          "shorten the labels, or squash the snapshot");
    const artifact::Layer& layer = snapshot.manifest.layers.at(0);
    AddEntry(PayloadPath(chain_.layout, snapshot.directory, layer.file),
             (source.artifact.path / source.artifact.manifest.layers.at(0).file).native());
    if (!layer.integrity) return;
    Limit(path, budget_.AddHashed(source.layers.at(0).stamp.size, layer.integrity->algorithm),
          "squash the snapshot without recording the integrity");
  }

  void AddImageFile(const std::string& file) {
    constexpr std::string_view kWithout = "export the snapshot without its image";
    const SourceFile source = OpenImageFile(spec_.cache_dir, file);
    AddEntry(ImagePath(chain_.layout, file), source.name);
    Limit(source.name, budget_.AddImageFile(), kWithout);
    if (IsImageMetadata(file)) {
      Limit(source.name, budget_.AddMetadata(source.stamp.size), kWithout);
    }
    Limit(source.name, budget_.AddHashed(source.stamp.size, artifact::kSha256), kWithout);
  }

  // entry is the path in the archive, and source names the file in messages.
  void AddEntry(const std::string& entry, const std::string& source) {
    if (!ParseMemberPath(entry)) {
      Throw(ErrorKind::kUnsupportedOperation,
            "{} has a name that an archive cannot hold: it must be UTF-8 without backslashes and "
            "control characters; squash the snapshot first",
            base::Quoted(source));
    }
    Limit(source, budget_.AddEntry(), "squash the snapshot first");
  }

  static void Limit(const std::string& source, const ArchiveBudget::Excess& excess,
                    std::string_view next_step) {
    if (!excess) return;
    Throw(ErrorKind::kUnsupportedOperation, "with {}, the archive {}; {}", base::Quoted(source),
          *excess, next_step);
  }

  const ExportSpec& spec_;
  const OutgoingChain& chain_;
  ArchiveBudget budget_;
};

// Returns what the archive contains. Throws kUnsupportedOperation if Import would refuse it.
OutgoingChain PrepareArchive(const ExportSpec& spec) {
  OutgoingChain chain = PrepareChain(spec.chain);
  if (spec.with_image) chain.images = FilesOfImages(spec.cache_dir, spec.chain);
  ArchivePlan(spec, chain).Check();
  return chain;
}

// Returns the space that the archive needs: its data or, if it is compressed, an upper bound.
base::SpaceNeed NeedOf(const Context& ctx, const ExportSpec& spec, const OutgoingChain& chain) {
  const SourceBytes sources = CountSources(ctx, spec, chain.images);
  if (spec.plain_tar) return {.bytes = sources.data};
  // Data that cannot be compressed and has an extent for each 4 KiB becomes less than 1/16 longer;
  // 128 KiB of zeros become 4 bytes; and the headers of an entry with its description in the
  // inventory have less than 4 KiB.
  constexpr std::uint64_t kEntryBytes = 4096;
  std::uint64_t most = sources.data + sources.data / 16 + sources.size / 16384;
  for (const OutgoingSnapshot& snapshot : chain.snapshots) most += snapshot.bytes.size();
  most += kEntryBytes * (2 * chain.snapshots.size() + chain.images.size() + 4);
  return {base::SpaceNeed::Bound::kAtMost, most};
}

// Writes the complete archive to the sink. The archive is compressed unless spec.plain_tar is set.
void WriteArchive(const Context& ctx, const ExportSpec& spec, const OutgoingChain& chain,
                  std::unique_ptr<ByteSink> sink) {
  const bool counted = base::ProgressMeter::Wanted(ctx);
  base::ProgressMeter meter(ctx, "export",
                            counted ? CountSources(ctx, spec, chain.images).data : 0);
  if (!spec.plain_tar) sink = MakeZstdSink(std::move(sink), spec.level, spec.threads);
  Exporter(ctx, spec, chain, meter, *sink).Run();
  meter.Finish();
}

}  // namespace

void ExportArchive(const Context& ctx, const ExportSpec& spec) {
  ctx.Check();
  artifact::OutputFile out("archive", spec.out);
  const int file = out.Create();
  const OutgoingChain chain = PrepareArchive(spec);
  base::ReportingSpace(
      file, [&] { return NeedOf(ctx, spec, chain); },
      [&] {
        WriteArchive(ctx, spec, chain, MakeFileSink(file));
        base::Sync(file);
      });
  out.Publish(ctx);
}

void ExportArchive(const Context& ctx, const ExportSpec& spec, base::OutputStream& stream) {
  ctx.Check();
  WriteArchive(ctx, spec, PrepareArchive(spec), MakeStreamSink(ctx, stream));
}

}  // namespace msb::archive
