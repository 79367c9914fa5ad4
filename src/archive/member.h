// The members of an archive, which are its files, and the closed set of paths that they may have.
// docs/formats.md describes the three layouts.

#ifndef MSB_SRC_ARCHIVE_MEMBER_H_
#define MSB_SRC_ARCHIVE_MEMBER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/artifact/integrity.h"
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

// Where the inventory is, of layouts that have one.
inline constexpr std::string_view kInventoryPath = "archive.json";

// What inventories call a kind: "snapshot-descriptor", …; not for kInventory, which lists itself in
// none.
std::string_view KindName(MemberKind kind);

// What a path says of its member.
struct MemberPath {
  // Those that have such a path.
  bool in_legacy = false;
  bool in_inventory = false;
  bool in_layered = false;
  MemberKind kind = MemberKind::kManifest;
  // The directory of the snapshot. kLegacy: "sha256-" and the first 16 hex digits of its digest;
  // kInventory: the 64 hex digits of its digest; kLayered: its snapshot id, "snap_…". Empty for a
  // kLayered payload, which any snapshot may own, for image files and the inventory.
  std::string snapshot = {};
  // A payload's name in the artifact's directory, kLayered: "layers/ID.FORMAT"; an image file's
  // below the cache, "KIND/FILE"; empty for the others.
  std::string file = {};
};

// Nothing for a path that no member may have.
std::optional<MemberPath> ParseMemberPath(std::string_view path);

// Where a member is in an archive of this layout, the reverse of ParseMemberPath: snapshot and file
// are what MemberPath has. A kLayered payload's path is its file, whatever the snapshot.
std::string ManifestPath(Layout layout, std::string_view snapshot);
std::string PayloadPath(Layout layout, std::string_view snapshot, std::string_view file);
std::string ImagePath(Layout layout, std::string_view file);

// A member as it was written or as it arrived.
struct Member {
  std::string path = {};
  MemberKind kind = MemberKind::kManifest;
  // A snapshot's digest, kLayered: id. None for an image file, nor for a kLayered payload that
  // several snapshots share.
  std::optional<std::string> owner = {};
  std::uint64_t encoded_size = 0;   // Bytes that the tar entry carries.
  std::uint64_t apparent_size = 0;  // Bytes of the file, holes included.
  // The ranges of a sparse entry as its map lists them, the zero-length one that ends a trailing
  // hole included; empty for a dense entry.
  std::vector<disk::Extent> ranges = {};
  // A payload's: what its manifest records, if anything; another's: kSha256 of its content.
  std::optional<artifact::Integrity> integrity = {};
  std::string transport_digest = {};  // msb-archive-member-blake3-v1, "blake3:…".
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_MEMBER_H_
