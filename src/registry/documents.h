// SPDX-License-Identifier: Apache-2.0
//
// Writes and parses the OCI documents of a snapshot: the index that a tag names, and the manifests
// that it lists. docs/formats.md defines them.

#ifndef MSB_SRC_REGISTRY_DOCUMENTS_H_
#define MSB_SRC_REGISTRY_DOCUMENTS_H_

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/artifact/manifest.h"
#include "src/base/digest.h"
#include "src/registry/registry_client.h"

namespace msb::registry {

inline constexpr std::string_view kIndexMediaType = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kManifestMediaType = "application/vnd.oci.image.manifest.v1+json";

// The annotation of an index, and of a snapshot's manifest, that holds the digest of the snapshot.
inline constexpr const char* kDigestAnnotation = "vnd.msb.snapshot.digest";

// The longest index or manifest, in bytes. Registries refuse longer ones.
inline constexpr std::size_t kMaxDocumentBytes = 4 << 20;

// The object that a manifest describes.
enum class Content { kSnapshot, kImageFile };

using Annotations = std::map<std::string, std::string>;

// The manifest of a snapshot, or of one file of an image.
struct FileManifest {
  Content content = Content::kSnapshot;
  BlobDescriptor table = {};  // The chunk table.
  // kSnapshot only: the artifact's manifest, and its generation. Never kLayered.
  BlobDescriptor manifest = {};
  artifact::ManifestForm form = artifact::ManifestForm::kDescriptor;
  std::vector<BlobDescriptor> chunks = {};  // The blobs of the chunks, each once.
  Annotations annotations = {};             // Not parsed.
};

// A manifest that an index lists.
struct IndexEntry {
  // The object that the manifest describes; nullopt if a tool dropped this when it copied the
  // index.
  std::optional<Content> content = Content::kSnapshot;
  BlobDescriptor manifest = {};

  bool operator==(const IndexEntry&) const = default;
};

// The index of a snapshot: its manifest first, then those of the snapshots that it is backed by or
// descends from, nearest first, then those of the files of images.
struct SnapshotIndex {
  std::vector<IndexEntry> entries = {};
  Annotations annotations = {};  // Not parsed.
};

// Return the tags under which Push stores the manifest of a snapshot, and of a file of an image. A
// garbage collection of the registry may remove a manifest that only an index names.
std::string SnapshotTag(const base::Digest& snapshot);
std::string ImageTag(const base::Digest& manifest);
// Returns true if tag has the form of one of these tags, so that users must not choose it.
bool IsReservedTag(std::string_view tag);

// Return the documents. Their text depends only on their content.
std::string WriteFileManifest(const FileManifest& manifest);
std::string WriteSnapshotIndex(const SnapshotIndex& index);

// Parse documents of a registry. Ignore unknown fields, since registries and tools add some. Accept
// an index without artifact types, which skopeo 1.9 drops, if it has the annotations of a snapshot.
// origin is the name of the document in messages.
// Throws kSnapshotIntegrity if the document is malformed.
// Throws kUnsupportedOperation if it describes something other than a snapshot.
FileManifest ParseFileManifest(const RemoteDocument& document, std::string_view origin);
SnapshotIndex ParseSnapshotIndex(const RemoteDocument& document, std::string_view origin);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_DOCUMENTS_H_
