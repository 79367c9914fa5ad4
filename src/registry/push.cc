// SPDX-License-Identifier: Apache-2.0

#include "src/registry/push.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "src/archive/export_chain.h"
#include "src/archive/image_files.h"
#include "src/base/core_count.h"
#include "src/base/regular_file.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/extents.h"
#include "src/registry/documents.h"
#include "src/registry/file_push.h"

namespace msb::registry {
namespace {

using archive::OutgoingChain;
using archive::OutgoingSnapshot;
using base::Digest;
using base::Throw;
using base::UniqueFd;

// The maximum size of the labels, in bytes, that are copied into the annotations of a manifest.
constexpr std::size_t kMaxLabelBytes = 64 << 10;

Annotations AnnotationsOf(const OutgoingSnapshot& snapshot) {
  const artifact::Manifest& manifest = snapshot.manifest;
  Annotations annotations = {{"org.opencontainers.image.created", manifest.created_at},
                             {kDigestAnnotation, manifest.digest},
                             {"vnd.msb.snapshot.image", manifest.image.ref}};
  if (manifest.parent) annotations.emplace("vnd.msb.snapshot.parent", *manifest.parent);
  std::size_t label_bytes = 0;
  for (const auto& [key, value] : manifest.labels) label_bytes += key.size() + value.size();
  if (label_bytes > kMaxLabelBytes) return annotations;
  for (const auto& [key, value] : manifest.labels) {
    annotations.emplace("vnd.msb.snapshot.label." + key, value);
  }
  return annotations;
}

RemoteDocument Document(std::string_view media_type, std::string bytes) {
  if (bytes.size() > kMaxDocumentBytes) {
    Throw(ErrorKind::kUnsupportedOperation,
          "a manifest or index of {} bytes is needed, but registries accept at most {}; push fewer "
          "snapshots: leave out with_parents, or squash the snapshot first",
          bytes.size(), kMaxDocumentBytes);
  }
  std::string digest = base::Sha256Digest(bytes);
  return {std::string(media_type), std::move(digest), std::move(bytes)};
}

class Pusher {
 public:
  Pusher(const Context& ctx, const PushSpec& spec, Origins& origins)
      : ctx_(ctx),
        spec_(spec),
        origins_(origins),
        chain_(archive::PrepareChain(spec.chain)),
        images_(spec.with_image ? archive::FilesOfImages(spec.cache_dir, spec.chain)
                                : std::vector<std::string>()),
        meter_(ctx, "push", 0),
        client_(ctx, spec.reference.registry, spec.options),
        known_(client_, spec.reference.repository),
        memory_(PushMemoryFor(spec.level, base::CoreCount())),
        workers_([this] { client_.Wake(); }, memory_.workers),
        session_{.ctx = ctx,
                 .client = client_,
                 .workers = workers_,
                 .known = known_,
                 .meter = meter_,
                 .repository = spec.reference.repository,
                 .level = spec.level,
                 .blob_room = memory_.blob_bytes} {}

  std::string Run() {
    FindKnown();
    // Set after FindKnown, which would treat an exception of the progress function as a failure of
    // the registry.
    client_.OnTraffic([this](std::uint64_t bytes) { meter_.Add(bytes); });
    if (base::ProgressMeter::Wanted(ctx_)) session_.data_bytes = CountData();
    for (auto snapshot = chain_.snapshots.rbegin(); snapshot != chain_.snapshots.rend();
         ++snapshot) {
      AddSnapshot(*snapshot);
    }
    for (const std::string& file : images_) AddImageFile(file);
    const RemoteDocument index = PutDocuments();
    for (const std::string& warning : known_.warnings()) spec_.log(warning);
    meter_.SetTotal(meter_.done());
    meter_.Finish();
    Reference pushed = spec_.reference;
    pushed.digest = Digest::Require(index.digest);
    return pushed.ToString();
  }

 private:
  // A manifest whose blobs have been sent.
  struct Prepared {
    std::string object;  // As in Transferred.
    std::string tag;
    RemoteDocument document;
  };

  // Collects the chunks that the registry has of these snapshots and of their ancestors.
  void FindKnown() {
    bool all = true;
    for (const OutgoingSnapshot& snapshot : chain_.snapshots) {
      all &= FindSnapshot(Digest::Require(snapshot.manifest.digest));
    }
    for (const std::string& file : images_) all &= FindOrigin(file);
    if (all) return;
    for (const Digest& ancestor : spec_.ancestors) {
      // The nearest ancestor has every chunk of the older ones, unless it has replaced it.
      if (FindSnapshot(ancestor)) break;
    }
    // Last, because anybody who may push to the tag has chosen its tables.
    known_.ReadIndex(spec_.reference.tag);
  }

  bool FindSnapshot(const Digest& digest) {
    return FindOrigin(digest.ToString()) || known_.ReadSnapshot(digest);
  }

  // Reads the table of an object that this home has pushed or pulled.
  bool FindOrigin(const std::string& object) {
    std::vector<Origin> origins = origins_.Find(spec_.reference.registry, object);
    // The target comes first, because its blobs need not be mounted.
    std::stable_partition(origins.begin(), origins.end(), [&](const Origin& origin) {
      return origin.repository == session_.repository;
    });
    return std::ranges::any_of(origins,
                               [&](const Origin& origin) { return known_.ReadOrigin(origin); });
  }

  std::uint64_t CountData() const {
    std::uint64_t bytes = 0;
    const auto add = [&](int fd) {
      bytes += disk::CountDataBytes(ctx_, fd, base::StampOf(fd).size);
    };
    for (const artifact::OpenedArtifact& opened : spec_.chain) {
      add(artifact::OpenLayer(opened, 0).get());
    }
    for (const std::string& file : images_) add(OpenImage(file).get());
    return bytes;
  }

  UniqueFd OpenImage(const std::string& file) const {
    return base::OpenRegularFile(spec_.cache_dir / file, ErrorKind::kSnapshotImageMissing);
  }

  ChunkTable PushFileAt(int fd, const std::string& name, const std::filesystem::path& path) {
    return PushChunks(
        session_,
        {.fd = fd, .stamp = base::StampOf(fd), .table_name = name, .path = path.native()});
  }

  void AddSnapshot(const OutgoingSnapshot& snapshot) {
    const artifact::Artifact& source = snapshot.source->artifact;
    const artifact::Layer& layer = snapshot.manifest.layers.at(0);
    const std::filesystem::path path = source.path / source.manifest.layers.at(0).file;
    const UniqueFd fd = artifact::OpenLayer(*snapshot.source, 0);
    const ChunkTable table = PushFileAt(fd.get(), layer.file, path);
    const auto& integrity = layer.integrity;
    if (integrity && integrity->algorithm == artifact::kFileMerkle &&
        integrity->digest != table.root) {
      Throw(
          ErrorKind::kSnapshotIntegrity,
          "{} is damaged: expected {}, found {}; restore it from a backup, or remove the snapshot "
          "and import or pull it again",
          path.native(), integrity->digest, table.root);
    }
    FileManifest manifest;
    manifest.content = Content::kSnapshot;
    manifest.manifest = PushDocument(session_, snapshot.bytes);
    manifest.form = snapshot.manifest.form;
    manifest.annotations = AnnotationsOf(snapshot);
    AddManifest(std::move(manifest), table, snapshot.manifest.digest);
  }

  void AddImageFile(const std::string& file) {
    const UniqueFd fd = OpenImage(file);
    const ChunkTable table = PushFileAt(fd.get(), file, spec_.cache_dir / file);
    AddManifest(
        {.content = Content::kImageFile, .annotations = {{"org.opencontainers.image.title", file}}},
        table, file);
  }

  // Sends the chunk table. object is what Transferred names.
  void AddManifest(FileManifest manifest, const ChunkTable& table, const std::string& object) {
    manifest.table = PushDocument(session_, WriteChunkTable(table));
    manifest.chunks = table.Blobs();
    // The format requires one layer.
    if (manifest.content == Content::kImageFile && manifest.chunks.empty()) {
      manifest.chunks.push_back(PushDocument(session_, ChunkCodec().Compress({}, spec_.level)));
    }
    RemoteDocument document = Document(kManifestMediaType, WriteFileManifest(manifest));
    index_.entries.push_back({manifest.content, {document.digest, document.bytes.size()}});
    std::string tag = manifest.content == Content::kSnapshot
                          ? SnapshotTag(Digest::Require(object))
                          : ImageTag(Digest::Require(document.digest));
    prepared_.push_back({object, std::move(tag), std::move(document)});
  }

  // Stores a manifest under its tag. Falls back to its digest if the registry refuses the tag,
  // which only makes the manifest harder to find, and easier to lose in a garbage collection.
  void PutManifest(const Prepared& manifest) {
    if (client_.FindDigest(session_.repository, manifest.tag) == manifest.document.digest) return;
    const auto refusal =
        client_.TryPutManifest(session_.repository, manifest.tag, manifest.document);
    if (!refusal) return;
    spec_.log(fmt::format("{}; the manifest is stored without this tag", *refusal));
    client_.PutManifest(session_.repository, manifest.document.digest, manifest.document);
  }

  // Stores the index under the user's tag.
  void PutIndex(const RemoteDocument& index) {
    const std::string& tag = spec_.reference.tag;
    if (!client_.TryPutManifest(session_.repository, tag, index)) return;
    // A registry that does not let tags move may refuse even the index that the tag names.
    if (client_.FindDigest(session_.repository, tag) == index.digest) return;
    client_.PutManifest(session_.repository, tag, index);
  }

  RemoteDocument PutDocuments() {
    const OutgoingSnapshot& head = chain_.snapshots.back();
    index_.annotations = AnnotationsOf(head);
    // The name of a directory may be anything, but a JSON document is UTF-8. Only the index has the
    // name, so that all homes write the same manifest for a snapshot.
    const std::string name = head.source->artifact.Name();
    if (base::IsUtf8(name)) index_.annotations.emplace("org.opencontainers.image.title", name);
    RemoteDocument index = Document(kIndexMediaType, WriteSnapshotIndex(index_));
    for (const Prepared& manifest : prepared_) PutManifest(manifest);
    PutIndex(index);
    std::vector<Transferred> pushed;
    for (const Prepared& manifest : prepared_) {
      pushed.push_back({manifest.object, manifest.document.digest});
    }
    origins_.Add(spec_.reference.registry, session_.repository, pushed);
    return index;
  }

  const Context& ctx_;
  const PushSpec& spec_;
  Origins& origins_;
  const OutgoingChain chain_;
  const std::vector<std::string> images_;  // Files of the cache.
  base::ProgressMeter meter_;
  RegistryClient client_;
  KnownChunks known_;
  const PushMemory memory_;
  WorkerPool workers_;
  PushSession session_;
  SnapshotIndex index_;
  std::vector<Prepared> prepared_;
};

}  // namespace

std::string PushSnapshots(const Context& ctx, const PushSpec& spec, Origins& origins) {
  return Pusher(ctx, spec, origins).Run();
}

}  // namespace msb::registry
