// SPDX-License-Identifier: Apache-2.0

#include "src/registry/remote_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "src/base/digest.h"
#include "src/base/throw.h"
#include "src/registry/in_order.h"

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

void RemoteFiles::GetManifests(std::span<const IndexEntry> entries,
                               const std::function<void(RemoteFile file)>& use) {
  using Document = std::optional<RemoteDocument>;
  // A manifest that is a little longer than its index says is refused with a better message.
  constexpr std::uint64_t kTolerance = 64 << 10;
  const auto size_of = [&](std::size_t index) {
    return std::min<std::uint64_t>(entries[index].manifest.size, kMaxDocumentBytes - kTolerance) +
           kTolerance;
  };
  const DocumentList<Document> list = {
      .count = entries.size(),
      .size = size_of,
      .begin = [&](std::size_t index, std::function<void(Document)> done) {
        client_.GetManifest(reference_.repository, entries[index].manifest.digest, size_of(index),
                            std::move(done));
      }};
  GetInOrder<Document>(client_, list, [&](std::size_t index, Document document) {
    use(ParseManifest(entries[index], std::move(document)));
  });
}

RemoteFile RemoteFiles::ParseManifest(const IndexEntry& entry,
                                      std::optional<RemoteDocument> document) {
  const std::string& digest = entry.manifest.digest;
  RemoteFile file{.manifest = {},
                  .digest = digest,
                  .name = fmt::format("the manifest {} of {}", digest, reference_.ToString()),
                  .blobs = {}};
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

void RemoteFiles::GetArtifactManifests(
    std::span<const RemoteFile* const> files,
    const std::function<void(std::size_t index, std::string bytes)>& use) {
  std::vector<Part> parts;
  parts.reserve(files.size());
  for (const RemoteFile* file : files) {
    parts.push_back({file->manifest.manifest, "the snapshot's manifest in " + file->name});
  }
  GetParts(parts, artifact::kMaxManifestBytes, use);
}

void RemoteFiles::GetTables(std::span<const RemoteFile* const> files,
                            const std::function<void(std::size_t index, ChunkTable table)>& use) {
  std::vector<Part> parts;
  parts.reserve(files.size());
  for (const RemoteFile* file : files) {
    parts.push_back({file->manifest.table, "the chunk table of " + file->name});
  }
  GetParts(parts, kMaxTableBytes, [&](std::size_t index, const std::string& bytes) {
    use(index, ParseTable(*files[index], parts[index].name, bytes));
  });
}

ChunkTable RemoteFiles::ParseTable(const RemoteFile& file, const std::string& name,
                                   const std::string& bytes) {
  ChunkTable table = ParseChunkTable(bytes, name);
  const std::vector<BlobDescriptor> blobs = table.Blobs();
  // A file of an image that has no chunks lists a blob nevertheless.
  if (!blobs.empty() && DigestOf(blobs) != file.blobs) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "{} does not list the blobs of its chunk table; push the snapshot again", file.name);
  }
  CountChunks(file, table);
  return table;
}

void RemoteFiles::GetParts(const std::vector<Part>& parts, std::size_t limit,
                           const std::function<void(std::size_t index, std::string bytes)>& use) {
  const DocumentList<std::string> list = {
      .count = parts.size(),
      .size = [&](std::size_t index) { return parts[index].blob.size; },
      .begin =
          [&](std::size_t index, std::function<void(std::string)> done) {
            const Part& part = parts[index];
            Count(part.blob.size, part.name, limit);
            client_.GetSmallBlob(reference_.repository, part.blob, std::move(done));
          }};
  GetInOrder<std::string>(client_, list, use);
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

void RemoteFiles::Count(std::uint64_t bytes, const std::string& name, std::size_t limit) {
  document_bytes_ += bytes;
  if (bytes <= limit && document_bytes_ <= kMaxTotalBytes) return;
  Throw(ErrorKind::kSnapshotIntegrity,
        "{} has {} bytes, which is too much: at most {} are supported, and {} for all documents "
        "of a pull",
        name, bytes, limit, kMaxTotalBytes);
}

}  // namespace msb::registry
