// SPDX-License-Identifier: Apache-2.0

#include "src/registry/known_chunks.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "msb/error.h"
#include "src/base/throw.h"
#include "src/registry/protocol.h"

namespace msb::registry {

bool HasOneContentPerBlob(const ChunkTable& table) {
  std::map<std::string_view, const Chunk*> chunks;
  return std::ranges::all_of(table.chunks, [&](const Chunk& chunk) {
    const Chunk& first = *chunks.try_emplace(chunk.blob.digest, &chunk).first->second;
    return first.hash == chunk.hash && first.blob == chunk.blob;
  });
}

KnownChunks::KnownChunks(RegistryClient& client, std::string target)
    : client_(client), target_(std::move(target)) {}

void KnownChunks::Try(const std::string& repository, const std::function<void()>& read) {
  if (refused_.contains(repository)) return;
  try {
    read();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled) throw;
    if (e.kind() != ErrorKind::kSnapshotIntegrity && e.kind() != ErrorKind::kUnsupportedOperation) {
      refused_.insert(repository);
    }
    warnings_.push_back(
        fmt::format("cannot reuse chunks that the registry already has: {}", e.what()));
    client_.Recover();
  }
}

Reading KnownChunks::ReadingOf(const std::string& repository) const {
  // The push needs this access to the target anyway, and may have no other.
  return {.is_hint = true, .scope = repository == target_ ? PushScope(repository) : std::string()};
}

bool KnownChunks::ReadOrigin(const Origin& origin) {
  bool found = read_.contains(origin.manifest);
  if (found) return true;
  Try(origin.repository, [&] {
    const auto manifest = client_.GetManifest(origin.repository, origin.manifest, kMaxDocumentBytes,
                                              ReadingOf(origin.repository));
    if (!manifest) return;
    ReadTable(origin.repository, *manifest, origin.manifest);
    found = true;
  });
  return found;
}

bool KnownChunks::ReadSnapshot(const base::Digest& snapshot) {
  bool found = read_.contains(snapshot.ToString());
  if (found) return true;
  Try(target_, [&] {
    const std::string tag = SnapshotTag(snapshot);
    const auto manifest = client_.GetManifest(target_, tag, kMaxDocumentBytes, ReadingOf(target_));
    if (!manifest) return;
    ReadTable(target_, *manifest, tag, snapshot.ToString());
    found = true;
  });
  return found;
}

void KnownChunks::ReadIndex(const std::string& tag) {
  Try(target_, [&] {
    const auto document = client_.GetManifest(target_, tag, kMaxDocumentBytes, ReadingOf(target_));
    if (!document) return;
    const SnapshotIndex index = ParseSnapshotIndex(*document, fmt::format("the index '{}'", tag));
    for (const IndexEntry& entry : index.entries) {
      const std::string& digest = entry.manifest.digest;
      if (read_.contains(digest)) continue;
      const auto manifest =
          client_.GetManifest(target_, digest, kMaxDocumentBytes, ReadingOf(target_));
      if (manifest) ReadTable(target_, *manifest, digest);
    }
  });
}

void KnownChunks::ReadTable(const std::string& repository, const RemoteDocument& manifest,
                            const std::string& name, const std::string& snapshot) {
  const FileManifest parsed = ParseFileManifest(manifest, fmt::format("the manifest '{}'", name));
  // The digest of an artifact's manifest is that of the snapshot.
  if (!snapshot.empty() && parsed.manifest.digest != snapshot) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "the manifest '{}' is that of the snapshot '{}'; push that snapshot again", name,
                parsed.manifest.digest);
  }
  if (parsed.table.size > kMaxTableBytes) return;
  const ChunkTable table =
      ParseChunkTable(client_.GetSmallBlob(repository, parsed.table, ReadingOf(repository)),
                      fmt::format("the chunk table of '{}'", name));
  if (!HasOneContentPerBlob(table)) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "the chunk table of '{}' names one blob for chunks with different content; push "
                "that snapshot again",
                name);
  }
  read_.insert(manifest.digest);
  read_.insert(parsed.manifest.digest);
  const std::lock_guard lock(mutex_);
  // Keeps the existing entries, because the most trusted tables are read first.
  for (const Chunk& chunk : table.chunks) {
    chunks_.try_emplace(chunk.hash, KnownChunk{.blob = chunk.blob, .repository = repository});
  }
}

std::optional<KnownChunk> KnownChunks::Find(const artifact::MerkleHash& hash) const {
  const std::lock_guard lock(mutex_);
  const auto found = chunks_.find(hash);
  if (found == chunks_.end()) return std::nullopt;
  return found->second;
}

void KnownChunks::Add(const artifact::MerkleHash& hash, const BlobDescriptor& blob) {
  const std::lock_guard lock(mutex_);
  chunks_.insert_or_assign(hash,
                           KnownChunk{.blob = blob, .repository = target_, .is_stored = true});
}

void KnownChunks::Forget() {
  warnings_.emplace_back(
      "cannot reuse chunks that the registry already has: the chunk tables in it contradict each "
      "other");
  const std::lock_guard lock(mutex_);
  chunks_.clear();
}

}  // namespace msb::registry
