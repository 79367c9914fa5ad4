// SPDX-License-Identifier: Apache-2.0
//
// Finds chunks that a registry already has, so that Push need not compress and send them again.
//
// Chunk tables record which blob holds a chunk, and a snapshot that is pushed on the basis of a
// wrong table cannot be pulled. Tables in other repositories are therefore read only by the digest
// of a manifest that this home has pushed or pulled. In the target, tables that a tag names are
// used as well: anyone who can write there can damage what is pushed in other ways, too.

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
#include "src/registry/origins.h"
#include "src/registry/registry_client.h"

namespace msb::registry {

// A chunk that the registry has.
struct KnownChunk {
  BlobDescriptor blob = {};
  std::string repository = {};
  bool is_stored = false;  // Whether this push has made sure that the target has the blob.
};

// Returns false if the table names the same blob for chunks with different content.
bool HasOneContentPerBlob(const ChunkTable& table);

// KnownChunks collects the chunk tables of snapshots in a registry, and finds chunks by the hashes
// in them. Find and Add may be called by several threads.
class KnownChunks {
 public:
  // client must outlive the object. Chunks are to be pushed to the repository target.
  KnownChunks(RegistryClient& client, std::string target);

  // Reads the table of a manifest that this home has pushed or pulled. Returns false if it cannot
  // be read.
  bool ReadOrigin(const Origin& origin);
  // Reads the table of the snapshot that has its tag in the target, unless it has been read before.
  // Returns false if it cannot be read.
  bool ReadSnapshot(const base::Digest& snapshot);
  // Reads the tables of all snapshots and files of the index that a tag of the target names, if it
  // exists, unless they have been read before.
  void ReadIndex(const std::string& tag);

  std::optional<KnownChunk> Find(const artifact::MerkleHash& hash) const;
  // Adds a chunk that the target has.
  void Add(const artifact::MerkleHash& hash, const BlobDescriptor& blob);
  // Forgets all chunks, because the tables contradict each other.
  void Forget();

  // Returns a warning for each document that could not be used. They should be logged only if the
  // push succeeds: a push that fails usually does so for the same reason.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  // Reads the table of a manifest, which must be that of the snapshot unless that is empty.
  void ReadTable(const std::string& repository, const RemoteDocument& manifest,
                 const std::string& name, const std::string& snapshot = {});
  // Calls read, and turns all errors except a cancellation into warnings. If the registry refuses
  // or fails a request, the repository is not read again.
  void Try(const std::string& repository, const std::function<void()>& read);
  // Returns how documents of a repository are read.
  Reading ReadingOf(const std::string& repository) const;

  RegistryClient& client_;
  const std::string target_;
  mutable std::mutex mutex_;
  std::map<artifact::MerkleHash, KnownChunk> chunks_;  // Guarded by mutex_.
  std::set<std::string> read_;                         // The digests of snapshots and manifests.
  std::set<std::string> refused_;                      // The repositories that cannot be read.
  std::vector<std::string> warnings_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_KNOWN_CHUNKS_H_
