// The metadata of a snapshot, whichever generation wrote it, and its JSON. docs/formats.md
// describes each generation.

#ifndef MSB_SRC_ARTIFACT_MANIFEST_H_
#define MSB_SRC_ARTIFACT_MANIFEST_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/artifact/integrity.h"
#include "src/base/time.h"

namespace msb::artifact {

// Longer manifests are refused unread, bytes.
inline constexpr std::size_t kMaxManifestBytes = 8 << 20;

// The file that holds a raw upper, in artifacts and in the runtimes' sandboxes.
inline constexpr std::string_view kRawUpperFile = "upper.ext4";
// The same for qcow2, in artifacts and in sandboxes of the local backend.
inline constexpr std::string_view kQcow2UpperFile = "upper.qcow2";

// The file name for an upper of this format.
std::string UpperFileName(DiskFormat format);

// The name of a disk that others stand on, by the digest of its snapshot or image, in the cache and
// in sandboxes, and in the headers of those others: "sha256_HEX.raw" or ".qcow2".
std::string DiskFileName(std::string_view digest, DiskFormat format);

enum class ManifestForm { kManifest, kDescriptor, kLayered };

// "manifest.json" or "snapshot.json".
std::string_view ManifestFileName(ManifestForm form);

// True for the names that files of an artifact have which are no disks; no upper may have them.
bool IsReservedFile(std::string_view name);

// One file of a snapshot's disk.
struct Layer {
  std::string file = {};  // Beneath the artifact directory: one plain name, or "layers/" and one.
  DiskFormat format = DiskFormat::kRaw;
  std::optional<std::uint64_t> file_bytes = {};  // Its apparent size, where that is recorded.
  std::optional<Integrity> integrity = {};
};

struct Manifest {
  ManifestForm form = ManifestForm::kDescriptor;
  std::string digest;                 // The identity; set by ParseManifest and SealManifest.
  std::string snapshot_id;            // kLayered only: "snap_…".
  std::string created_at;             // RFC 3339.
  base::UtcTime created;              // The same moment.
  std::optional<std::string> parent;  // A digest; kLayered: a snapshot id.
  vmm::Image image;
  std::optional<std::string> source_sandbox;
  std::map<std::string, std::string> labels;
  std::string scope = "disk";       // "disk" or "resumable".
  std::string state_kind = "file";  // "file" or "checkpoint".
  std::string fstype;               // Empty for a checkpoint.
  std::uint64_t size_bytes = 0;     // Apparent size of the upper; kLayered: what the guest sees.
  // The disk, its head first, each standing on the next; empty for a checkpoint.
  std::vector<Layer> layers;
  std::string checkpoint_id;
  std::optional<std::string> checkpoint_manifest;  // Its digest.
  std::string extensions = "{}";                   // Canonical JSON.
  std::vector<std::string> required;               // Keys of extensions that a user must know.
};

// True if a qcow2 layer of the snapshot may name this file as its backing file: it is its parent's
// or its image's.
bool IsBelow(const Manifest& manifest, std::string_view backing_file);

// Reads a manifest.json or snapshot.json. Throws kSnapshotIntegrity, saying what is wrong; origin
// is the file to name in the message.
Manifest ParseManifest(ManifestForm form, std::string_view bytes, std::string_view origin);
// kDescriptor or kLayered, which share a file name, by the content.
Manifest ParseSnapshotJson(std::string_view bytes, std::string_view origin);

// The canonical bytes of a kManifest or kDescriptor. Sets the digest and the canonical created_at.
std::string SealManifest(Manifest& manifest);

// labels of a kLayered snapshot's metadata.json.
std::map<std::string, std::string> ParseLayeredMetadata(std::string_view bytes,
                                                        std::string_view origin);
// name of group-member.json; head of group.json.
std::string ParseGroupMember(std::string_view bytes, std::string_view origin);
std::string ParseGroupHead(std::string_view bytes, std::string_view origin);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_MANIFEST_H_
