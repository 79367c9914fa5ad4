// SPDX-License-Identifier: Apache-2.0
//
// Gets the documents that describe what a reference names: the index, the manifests, the artifacts'
// manifests and the chunk tables.

#ifndef MSB_SRC_REGISTRY_REMOTE_FILES_H_
#define MSB_SRC_REGISTRY_REMOTE_FILES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
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

  // Each function below requests the documents of several files at the same time, and calls use
  // with each document, in the order of the files. index is that of the file.
  void GetManifests(std::span<const IndexEntry> entries,
                    const std::function<void(RemoteFile file)>& use);
  // Gets the artifacts' manifests of snapshots.
  void GetArtifactManifests(std::span<const RemoteFile* const> files,
                            const std::function<void(std::size_t index, std::string bytes)>& use);
  // Gets the chunk tables, and checks that the manifest of each file lists exactly its blobs.
  void GetTables(std::span<const RemoteFile* const> files,
                 const std::function<void(std::size_t index, ChunkTable table)>& use);

 private:
  // A document that describes a file, in a blob.
  struct Part {
    BlobDescriptor blob;
    std::string name;
  };
  RemoteFile ParseManifest(const IndexEntry& entry, std::optional<RemoteDocument> document);
  ChunkTable ParseTable(const RemoteFile& file, const std::string& name, const std::string& bytes);
  void GetParts(const std::vector<Part>& parts, std::size_t limit,
                const std::function<void(std::size_t index, std::string bytes)>& use);
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
