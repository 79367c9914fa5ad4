// SPDX-License-Identifier: Apache-2.0

#include "src/registry/remote_files.h"

#include <fmt/format.h>

#include <utility>

#include "src/base/digest.h"
#include "src/base/throw.h"

namespace msb::registry {
namespace {

using base::Throw;

// The maximum total size of the documents of one pull, in bytes. This is enough for the manifests
// and tables of two hundred full disks, or for a chain of several thousand snapshots.
constexpr std::uint64_t kMaxTotalBytes = 1 << 30;

// The maximum number of manifests that an index may list.
constexpr std::size_t kMaxManifests = 1 << 14;

// The maximum number of chunks in the tables of one pull, which are held in memory (up to 400 bytes
// each). With chunks of the default size, this is 4 TiB of data. Images are smaller than that.
constexpr std::size_t kMaxTotalChunks = 32 * kMaxChunks;
constexpr std::size_t kMaxImageChunks = 4 * kMaxChunks;

// Returns a digest of the list.
std::string DigestOf(const std::vector<BlobDescriptor>& blobs) {
  base::Sha256 hash;
  for (const BlobDescriptor& blob : blobs) {
    const std::string line = fmt::format("{} {}\n", blob.digest, blob.size);
    hash.Update(line.data(), line.size());
  }
  return hash.Finish();
}

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
                  .name = fmt::format("the manifest {} of {}", digest, reference_.ToString()),
                  .blobs = {}};
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
  file.blobs = DigestOf(file.manifest.chunks);
  file.manifest.chunks = std::vector<BlobDescriptor>();  // Unlike = {}, frees the memory.
  return file;
}

std::string RemoteFiles::GetArtifactManifest(const RemoteFile& file) {
  return GetDocument(file.manifest.manifest, "the snapshot's manifest in " + file.name,
                     artifact::kMaxManifestBytes);
}

ChunkTable RemoteFiles::GetTable(const RemoteFile& file) {
  const std::string name = "the chunk table of " + file.name;
  ChunkTable table = ParseChunkTable(GetDocument(file.manifest.table, name, kMaxTableBytes), name);
  const std::vector<BlobDescriptor> blobs = table.Blobs();
  // A file of an image that has no chunks lists a blob all the same.
  if (!blobs.empty() && DigestOf(blobs) != file.blobs) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} does not list the blobs of its chunk table; push the snapshot again", file.name);
  }
  CountChunks(file, table);
  return table;
}

void RemoteFiles::CountChunks(const RemoteFile& file, const ChunkTable& table) {
  const auto add = [&](std::size_t& count, std::size_t limit, std::string_view what) {
    count += table.chunks.size();
    if (count <= limit) return;
    Throw(ErrorKind::kUnsupportedOperation,
          "{}, together with the files before it, has more than {} chunks, the most that {} of one "
          "pull may have; push fewer snapshots at once",
          file.name, limit, what);
  };
  add(chunks_, kMaxTotalChunks, "the files");
  if (file.manifest.content == Content::kImageFile) {
    add(image_chunks_, kMaxImageChunks, "the images");
  }
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
