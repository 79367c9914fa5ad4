// SPDX-License-Identifier: Apache-2.0
//
// A Manifest holds the metadata of a snapshot, regardless of the generation that wrote it.
// docs/formats.md describes the JSON of each generation.

#ifndef MSB_SRC_ARTIFACT_MANIFEST_H_
#define MSB_SRC_ARTIFACT_MANIFEST_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/disk.h"
#include "src/artifact/integrity.h"
#include "src/base/time.h"

namespace msb::artifact {

// The longest manifest that is accepted, in bytes.
inline constexpr std::size_t kMaxManifestBytes = 8 << 20;
// The maximum number of layers of a disk. Each layer occupies a descriptor while the snapshot is
// used.
inline constexpr std::size_t kMaxLayers = 256;

enum class ManifestForm { kManifest, kDescriptor, kLayered };

// Returns "manifest.json" or "snapshot.json".
std::string_view ManifestFileName(ManifestForm form);

// Returns true if ManifestFileName can return this name.
bool IsManifestFile(std::string_view name);

// Returns true if an artifact directory may contain a file of this name that is not a disk. The
// upper must not have such a name.
bool IsReservedFile(std::string_view name);

// A Layer describes one file of a snapshot's disk.
struct Layer {
  // The path beneath the artifact directory: a plain file name, or "layers/" and a plain file name.
  std::string file = {};
  DiskFormat format = DiskFormat::kRaw;
  std::optional<std::uint64_t> file_bytes = {};  // The apparent size, if it is recorded.
  std::optional<Integrity> integrity = {};
};

struct Manifest {
  ManifestForm form = ManifestForm::kDescriptor;
  std::string digest;                 // The identity; set by ParseManifest and EncodeManifest.
  std::string snapshot_id;            // kLayered only: "snap_…".
  std::string created_at;             // RFC 3339.
  base::UtcTime created;              // The same time, parsed.
  std::optional<std::string> parent;  // A digest; kLayered: a snapshot id.
  Image image;
  std::optional<std::string> source_sandbox;
  std::map<std::string, std::string> labels;
  std::string captured;             // kLayered only: capture.consistency; see consistency.h.
  std::string scope = "disk";       // "disk" or "resumable".
  std::string state_kind = "file";  // "file" or "checkpoint".
  std::string fstype;               // Empty for a checkpoint.
  std::uint64_t size_bytes = 0;     // Apparent size of the upper; kLayered: its virtual size.
  // The files of the disk, the topmost layer first, each backed by the next. Empty for a
  // checkpoint.
  std::vector<Layer> layers;
  std::string checkpoint_id;
  std::optional<std::string> checkpoint_manifest;  // The digest of the checkpoint's manifest.
  std::string extensions = "{}";                   // Canonical JSON.
  std::vector<std::string> required;               // Keys of extensions that a reader must know.
};

// Returns true if a qcow2 layer of the snapshot may name this backing file: if it is the disk of
// the snapshot's parent or image.
bool IsBelow(const Manifest& manifest, std::string_view backing_file);

// Parses a manifest.json or snapshot.json. origin is the name of the file in messages.
// Throws kSnapshotIntegrity if it is malformed. The message names the problem.
// Throws kUnsupportedOperation if the disk has more than kMaxLayers layers.
Manifest ParseManifest(ManifestForm form, std::string_view bytes, std::string_view origin);
// Parses a snapshot.json. Detects from its content whether its form is kDescriptor or kLayered.
Manifest ParseSnapshotJson(std::string_view bytes, std::string_view origin);

// Returns the canonical bytes of a kManifest or kDescriptor. Sets digest and, for a kDescriptor,
// sets created_at to the canonical form of created.
std::string EncodeManifest(Manifest& manifest);

// Parses the metadata.json of a kLayered snapshot, and returns its labels.
std::map<std::string, std::string> ParseLayeredMetadata(std::string_view bytes,
                                                        std::string_view origin);
// Return the name in a group-member.json, and the head in a group.json.
std::string ParseGroupMember(std::string_view bytes, std::string_view origin);
std::string ParseGroupHead(std::string_view bytes, std::string_view origin);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_MANIFEST_H_
