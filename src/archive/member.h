// SPDX-License-Identifier: Apache-2.0
//
// Describes the members of an archive, which are its files, and all paths that members may have.
// docs/formats.md describes the three layouts.

#ifndef MSB_SRC_ARCHIVE_MEMBER_H_
#define MSB_SRC_ARCHIVE_MEMBER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "src/disk/extents.h"

namespace msb::archive {

enum class Layout { kLegacy, kInventory, kLayered };

enum class MemberKind {
  kManifest,       // manifest.json or snapshot.json
  kMetadata,       // metadata.json, kLayered only
  kPayload,        // A disk
  kImageMetadata,  // manifests/HEX.json of the image cache
  kImageObject,    // Any other file of the image cache
  kInventory,      // archive.json
};

// The path of the inventory, in layouts that have one.
inline constexpr std::string_view kInventoryPath = "archive.json";

// Returns the name of a kind in inventories, such as "snapshot-descriptor".
// Throws kInternal for kInventory, since no inventory lists itself.
std::string_view KindName(MemberKind kind);

// A MemberPath holds the information about a member that its path contains.
struct MemberPath {
  // The layouts that have such a path.
  bool in_legacy = false;
  bool in_inventory = false;
  bool in_layered = false;
  MemberKind kind = MemberKind::kManifest;
  // The directory of the snapshot. kLegacy: "sha256-" and the first 16 hex digits of its digest;
  // kInventory: the 64 hex digits of its digest; kLayered: its snapshot id, "snap_…". Empty for
  // image files, the inventory, and a kLayered payload, which any snapshot may own.
  std::string snapshot = {};
  // For a payload, the path in the artifact directory: a file name, or "layers/ID.FORMAT" in
  // kLayered. For an image file, the path in the cache, "KIND/FILE". Empty for other members.
  std::string file = {};
};

// Returns the directory of a snapshot with this digest in an archive of this layout, which is not
// kLayered.
std::string DirectoryOf(Layout layout, const base::Digest& digest);

// Parses the path of a member. Returns nullopt if no member may have this path.
std::optional<MemberPath> ParseMemberPath(std::string_view path);

// Return the path of a member in an archive of this layout; they are the inverse of
// ParseMemberPath. snapshot and file have the same meaning as in MemberPath. The path of a kLayered
// payload is file, regardless of the snapshot.
std::string ManifestPath(Layout layout, std::string_view snapshot);
std::string PayloadPath(Layout layout, std::string_view snapshot, std::string_view file);
std::string ImagePath(Layout layout, std::string_view file);

// A Member describes a member that was written or that has arrived.
struct Member {
  std::string path = {};
  MemberKind kind = MemberKind::kManifest;
  // The digest of the snapshot that it belongs to; kLayered: the snapshot id. Empty for an image
  // file, and for a kLayered payload that several snapshots share.
  std::optional<std::string> owner = {};
  std::uint64_t encoded_size = 0;   // Bytes that the tar entry stores.
  std::uint64_t apparent_size = 0;  // Bytes of the file, holes included.
  // The ranges of a sparse entry as its map lists them, including the range of length zero that
  // ends a trailing hole. Empty for a dense entry.
  std::vector<disk::Extent> ranges = {};
  // For a payload, the integrity that its manifest records, if any; for other members, the kSha256
  // of the content.
  std::optional<artifact::Integrity> integrity = {};
  std::string transport_digest = {};  // msb-archive-member-blake3-v1, "blake3:…".
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_MEMBER_H_
