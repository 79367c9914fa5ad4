// archive.json, the inventory that ends an archive and lists all that it holds.

#ifndef MSB_SRC_ARCHIVE_INVENTORY_H_
#define MSB_SRC_ARCHIVE_INVENTORY_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/archive/member.h"

namespace msb::archive {

// Longer inventories are refused unread, bytes. That is room for the sparse map of a disk with 2^18
// ranges, or for a chain of several thousand snapshots.
inline constexpr std::size_t kMaxInventoryBytes = 16 << 20;

struct ArchivedSnapshot {
  std::string id;               // Its digest; kLayered: its snapshot id.
  std::string manifest_path;    // Of its member.
  std::string manifest_digest;  // "sha256:…" of that member's bytes; kLayered only lists it.
};

struct Inventory {
  Layout layout = Layout::kInventory;  // Or kLayered.
  std::string head;                    // The id of a snapshot.
  std::optional<std::string> suggested_name;
  bool with_parents = false;
  bool with_image = false;
  std::vector<ArchivedSnapshot> snapshots;
  std::vector<Member> members;  // All but the inventory itself; no path twice.
};

// The bytes of the inventory of a kInventory archive, as releases write them.
std::string WriteInventory(Inventory inventory);

// Throws unless text, the inventory that came with an archive, says exactly what arrived.
// arrived.suggested_name and arrived.with_parents are not used: any name will do that a file can
// have, and with_parents must be true where there is more than one snapshot. A payload that arrived
// without an owner may be listed as that of any snapshot.
// kSnapshotIntegrity; kUnsupportedOperation: it requires what this library does not know, or is of
// an archive that is not whole.
void CheckInventory(std::string_view text, const Inventory& arrived);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_INVENTORY_H_
