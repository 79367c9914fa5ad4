// SPDX-License-Identifier: Apache-2.0
//
// Gets the documents that describe what a reference names: the index, the manifests, the artifacts'
// manifests and the chunk tables.

#ifndef MSB_SRC_REGISTRY_REMOTE_FILES_H_
#define MSB_SRC_REGISTRY_REMOTE_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "src/artifact/manifest.h"
#include "src/registry/chunk_table.h"
#include "src/registry/documents.h"
#include "src/registry/reference.h"
#include "src/registry/registry_client.h"

namespace msb::registry {

// A disk of a snapshot, or a file of an image.
struct RemoteFile {
  FileManifest manifest;  // Without the list of chunks, which may be long.
  std::string digest;     // The digest of its manifest.
  std::string name;       // The name of its manifest in messages.
  std::string blobs;      // A digest of that list.
};

// RemoteFiles gets the documents, and limits their number, their size, and the number of chunks.
// All functions throw kSnapshotIntegrity if a document is missing, malformed or too long.
class RemoteFiles {
 public:
  // Both must outlive the object.
  RemoteFiles(RegistryClient& client, const Reference& reference)
      : client_(client), reference_(reference) {}

  // Gets the index. Throws kSnapshotNotFound if the registry does not have what the reference
  // names. Throws kUnsupportedOperation if it is not a snapshot.
  SnapshotIndex GetIndex();
  RemoteFile GetManifest(const IndexEntry& entry);
  // Returns the bytes of the artifact's manifest of a snapshot.
  std::string GetArtifactManifest(const RemoteFile& file);
  // Gets the chunk table, and checks that the manifest lists exactly its blobs.
  ChunkTable GetTable(const RemoteFile& file);

 private:
  std::string GetDocument(const BlobDescriptor& blob, const std::string& name, std::size_t limit);
  void Count(std::uint64_t bytes, const std::string& name, std::size_t limit);
  void CountChunks(const RemoteFile& file, const ChunkTable& table);

  RegistryClient& client_;
  const Reference& reference_;
  std::uint64_t document_bytes_ = 0;
  std::size_t chunks_ = 0;        // In all tables.
  std::size_t image_chunks_ = 0;  // In those of files of images.
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_REMOTE_FILES_H_
