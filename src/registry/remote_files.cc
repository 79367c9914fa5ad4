// SPDX-License-Identifier: Apache-2.0

#include "src/registry/remote_files.h"

#include <fmt/format.h>

#include <utility>

#include "src/base/throw.h"

namespace msb::registry {
namespace {

using base::Throw;

// The most bytes of documents in one pull. This is enough for the manifests and tables of two
// hundred full disks, or for a chain of several thousand snapshots.
constexpr std::uint64_t kMaxTotalBytes = 1 << 30;

// The most manifests that an index may list.
constexpr std::size_t kMaxManifests = 1 << 14;

}  // namespace

SnapshotIndex RemoteFiles::GetIndex() {
  const std::string name = reference_.ToString();
  const auto document =
      client_.GetManifest(reference_.repository, reference_.Target(), kMaxDocumentBytes);
  if (!document) {
    Throw(ErrorKind::kSnapshotNotFound,
          "the registry does not have {}; check the name of the repository and the tag, or push "
          "the snapshot",
          name);
  }
  SnapshotIndex index = ParseSnapshotIndex(*document, name);
  if (index.entries.size() > kMaxManifests) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} lists {} manifests, but at most {} are supported; push fewer snapshots", name,
          index.entries.size(), kMaxManifests);
  }
  return index;
}

RemoteFile RemoteFiles::GetManifest(const IndexEntry& entry) {
  const std::string& digest = entry.manifest.digest;
  RemoteFile file{.manifest = {},
                  .digest = digest,
                  .name = fmt::format("the manifest {} of {}", digest, reference_.ToString())};
  const auto document = client_.GetManifest(reference_.repository, digest, kMaxDocumentBytes);
  if (!document) {
    Throw(ErrorKind::kSnapshotIntegrity, "the registry does not have {}; push the snapshot again",
          file.name);
  }
  Count(document->bytes.size(), file.name, kMaxDocumentBytes);
  file.manifest = ParseFileManifest(*document, file.name);
  if (file.manifest.content != entry.content.value_or(file.manifest.content) ||
      document->bytes.size() != entry.manifest.size) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} is not what its index describes; push the snapshot again", file.name);
  }
  return file;
}

std::string RemoteFiles::GetArtifactManifest(const RemoteFile& file) {
  return GetDocument(file.manifest.manifest, "the snapshot's manifest in " + file.name,
                     artifact::kMaxManifestBytes);
}

ChunkTable RemoteFiles::GetTable(RemoteFile& file) {
  const std::string name = "the chunk table of " + file.name;
  ChunkTable table = ParseChunkTable(GetDocument(file.manifest.table, name, kMaxTableBytes), name);
  const std::vector<BlobDescriptor> blobs = table.Blobs();
  // A file of an image that has no chunks lists a blob all the same.
  if (blobs != file.manifest.chunks && !blobs.empty()) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} does not list the blobs of its chunk table; push the snapshot again", file.name);
  }
  file.manifest.chunks = {};
  return table;
}

std::string RemoteFiles::GetDocument(const BlobDescriptor& blob, const std::string& name,
                                     std::size_t limit) {
  Count(blob.size, name, limit);
  return client_.GetSmallBlob(reference_.repository, blob);
}

void RemoteFiles::Count(std::uint64_t bytes, const std::string& name, std::size_t limit) {
  document_bytes_ += bytes;
  if (bytes <= limit && document_bytes_ <= kMaxTotalBytes) return;
  Throw(ErrorKind::kSnapshotIntegrity,
        "{} has {} bytes, which is too much: at most {} are supported, and {} for all documents "
        "of a pull",
        name, bytes, limit, kMaxTotalBytes);
}

}  // namespace msb::registry
