// SPDX-License-Identifier: Apache-2.0

#include "src/registry/known_chunks.h"

#include <fmt/format.h>

#include <utility>

#include "msb/error.h"

namespace msb::registry {

std::string SnapshotTag(const base::Digest& snapshot) { return "snapshot-" + snapshot.hex(); }

KnownChunks::KnownChunks(RegistryClient& client, std::function<void(std::string_view)> log)
    : client_(client), log_(std::move(log)) {}

void KnownChunks::Try(const std::function<void()>& read) const {
  try {
    read();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSnapshotIntegrity && e.kind() != ErrorKind::kUnsupportedOperation) {
      throw;
    }
    log_(fmt::format("cannot reuse chunks that the registry already has: {}", e.what()));
  }
}

void KnownChunks::ReadIndex(const std::string& repository, const std::string& tag) {
  Try([&] {
    const auto document = client_.GetManifest(repository, tag, kMaxDocumentBytes);
    if (!document) return;
    const SnapshotIndex index = ParseSnapshotIndex(*document, fmt::format("the index '{}'", tag));
    for (const IndexEntry& entry : index.entries) {
      const std::string& digest = entry.manifest.digest;
      const auto manifest = client_.GetManifest(repository, digest, kMaxDocumentBytes);
      if (manifest) ReadTable(repository, *manifest, digest);
    }
  });
}

bool KnownChunks::ReadSnapshot(const std::string& repository, const base::Digest& snapshot) {
  bool found = read_.contains(snapshot.ToString());
  if (found) return true;
  Try([&] {
    const std::string tag = SnapshotTag(snapshot);
    const auto manifest = client_.GetManifest(repository, tag, kMaxDocumentBytes);
    if (!manifest) return;
    ReadTable(repository, *manifest, tag);
    found = true;
  });
  return found;
}

void KnownChunks::ReadTable(const std::string& repository, const RemoteDocument& manifest,
                            const std::string& origin) {
  const FileManifest parsed = ParseFileManifest(manifest, fmt::format("the manifest '{}'", origin));
  if (parsed.table.size > kMaxTableBytes) return;
  const ChunkTable table = ParseChunkTable(client_.GetSmallBlob(repository, parsed.table),
                                           fmt::format("the chunk table of '{}'", origin));
  // The digest of an artifact's manifest is that of the snapshot.
  read_.insert(parsed.manifest.digest);
  for (const Chunk& chunk : table.chunks) Add(chunk.hash, {chunk.blob, repository});
}

std::optional<KnownChunk> KnownChunks::Find(const artifact::MerkleHash& hash) const {
  const std::lock_guard lock(mutex_);
  const auto found = chunks_.find(hash);
  if (found == chunks_.end()) return std::nullopt;
  return found->second;
}

void KnownChunks::Add(const artifact::MerkleHash& hash, const KnownChunk& chunk) {
  const std::lock_guard lock(mutex_);
  chunks_.emplace(hash, chunk);
}

}  // namespace msb::registry
