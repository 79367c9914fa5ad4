// SPDX-License-Identifier: Apache-2.0
//
// Writes and checks the inventory of an archive, archive.json, which lists all other members.

#ifndef MSB_SRC_ARCHIVE_INVENTORY_H_
#define MSB_SRC_ARCHIVE_INVENTORY_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/archive/member.h"

namespace msb::archive {

// The extension that lists the snapshots that the receiver of an incremental archive must have.
inline constexpr std::string_view kBackingExtension = "msb.backing";

struct ArchivedSnapshot {
  std::string id;               // The digest; kLayered: the snapshot id.
  std::string manifest_path;    // The path of the manifest in the archive.
  std::string manifest_digest;  // "sha256:…" of the manifest's bytes; listed by kLayered only.
};

struct Inventory {
  Layout layout = Layout::kInventory;  // kInventory or kLayered.
  std::string head;                    // The id of the head.
  std::optional<std::string> suggested_name;
  bool with_parents = false;
  bool with_image = false;
  // The digests of the snapshots that the receiver must have. If there are any, the archive is
  // incremental, and released readers refuse it.
  std::vector<std::string> needed;
  std::vector<ArchivedSnapshot> snapshots;
  std::vector<Member> members;  // All members but the inventory itself; paths are unique.
};

// Returns the inventory of a kInventory archive, as releases write it.
std::string WriteInventory(Inventory inventory);

// Checks that text, the inventory of an archive, describes exactly the members that arrived.
// Returns the digests of the snapshots that the receiver must have.
// Ignores suggested_name, with_parents, with_image and needed of arrived. Instead, any plain file
// name is accepted as the suggested name, with_parents must be true if there is more than one
// snapshot, and with_image must be true if and only if there are image files. An inventory may list
// any snapshot as the owner of a payload that arrived without one.
// Throws kSnapshotIntegrity if the inventory differs from the members that arrived.
// Throws kUnsupportedOperation if the inventory requires an unknown extension, or if the archive is
// protected, or is incomplete and does not name the snapshots that it needs.
std::vector<std::string> CheckInventory(std::string_view text, const Inventory& arrived);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_INVENTORY_H_
