// SPDX-License-Identifier: Apache-2.0
//
// Finds chunks that a registry already has, so that Push need not compress and send them again.

#ifndef MSB_SRC_REGISTRY_KNOWN_CHUNKS_H_
#define MSB_SRC_REGISTRY_KNOWN_CHUNKS_H_

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "src/base/digest.h"
#include "src/registry/chunk_table.h"
#include "src/registry/documents.h"
#include "src/registry/registry_client.h"

namespace msb::registry {

// A chunk that the registry has.
struct KnownChunk {
  BlobDescriptor blob = {};
  std::string repository = {};
};

// Returns the tag under which Push stores the manifest of a snapshot, in addition to the tag that
// its caller chose, so that a later push of a child finds it.
std::string SnapshotTag(const base::Digest& snapshot);

// KnownChunks collects the chunk tables of snapshots in a registry, and finds chunks by the hashes
// in them. Find and Add may be called by several threads.
class KnownChunks {
 public:
  // client must outlive the object. log receives a warning for each document that cannot be used.
  KnownChunks(RegistryClient& client, std::function<void(std::string_view)> log);

  // Reads the tables of all snapshots and files of the index that a tag names, if it exists.
  void ReadIndex(const std::string& repository, const std::string& tag);
  // Reads the table of a snapshot, unless it has been read before. Returns false if the repository
  // does not have the snapshot.
  bool ReadSnapshot(const std::string& repository, const base::Digest& snapshot);

  std::optional<KnownChunk> Find(const artifact::MerkleHash& hash) const;
  void Add(const artifact::MerkleHash& hash, const KnownChunk& chunk);

 private:
  void ReadTable(const std::string& repository, const RemoteDocument& manifest,
                 const std::string& origin);
  // Calls read, and logs errors that are about the content of the registry.
  void Try(const std::function<void()>& read) const;

  RegistryClient& client_;
  const std::function<void(std::string_view)> log_;
  mutable std::mutex mutex_;
  std::map<artifact::MerkleHash, KnownChunk> chunks_;  // Guarded by mutex_.
  std::set<std::string> read_;                         // The digests of snapshots.
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_KNOWN_CHUNKS_H_
