// SPDX-License-Identifier: Apache-2.0
//
// Checks an inventory, field by field, against the members that arrived.

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/archive/inventory.h"
#include "src/archive/member_hash.h"
#include "src/artifact/manifest_json.h"
#include "src/base/digest.h"
#include "src/base/fields.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

using base::Fields;
using base::Json;
using base::Malformed;
using base::MalformedType;
using base::Quoted;
using base::Throw;
using Others = Fields::Others;

// The maximum number of JSON values in an inventory. There is room for the sparse map with the most
// ranges, which have three values each.
constexpr std::size_t kMaxInventoryValues = 1 << 20;

// The maximum number of snapshots that an incremental archive may need.
constexpr std::size_t kMaxNeeded = 1 << 10;

// Returns pointers to the elements, sorted by key, as inventories list them.
template <typename Element>
std::vector<const Element*> SortedBy(std::string Element::*key,
                                     const std::vector<Element>& elements) {
  std::vector<const Element*> sorted;
  sorted.reserve(elements.size());
  for (const Element& element : elements) sorted.push_back(&element);
  std::sort(sorted.begin(), sorted.end(),
            [&](const Element* a, const Element* b) { return a->*key < b->*key; });
  return sorted;
}

// Returns an array field, which must have size elements.
const Json& ArrayOf(const Fields& fields, std::string_view field, std::size_t size) {
  const Json& array = fields.At(field);
  if (!array.is_array()) MalformedType(fields.PathOf(field), "an array", array);
  if (array.size() != size) {
    Malformed(fields.PathOf(field),
              fmt::format("has {}, not {}", base::Count(array.size(), "element"), size));
  }
  return array;
}

class InventoryChecker {
 public:
  explicit InventoryChecker(const Inventory& arrived)
      : arrived_(arrived), layered_(arrived.layout == Layout::kLayered) {}

  std::vector<std::string> Check(const Json& document) {
    const Fields root = layered_ ? LayeredRoot(document) : InventoryRoot(document);
    CheckUnderstood(root);
    root.Expect("head", arrived_.head);
    CheckSuggestedName(root);
    const Json& extensions = root.At("extensions");
    if (!extensions.is_object()) MalformedType("extensions", "an object", extensions);
    std::vector<std::string> needed;
    if (incremental_) needed = ReadNeeded(extensions);
    CheckSnapshots(root);
    CheckEntries(root);
    if (layered_) {
      CheckLimits(root);
    } else {
      CheckExtent(root);
    }
    return needed;
  }

 private:
  static Fields InventoryRoot(const Json& document) {
    Fields root(
        document, "",
        {"schema", "artifact", "head", "suggested_name", "completeness", "with_parents",
         "with_image", "snapshots", "entries", "protection_requirements", "extensions", "requires"},
        Others::kRefuse);
    root.Expect("schema", 1U);
    root.Expect("artifact", "snapshot-archive");
    return root;
  }

  static Fields LayeredRoot(const Json& document) {
    Fields root(document, "",
                {"schema", "head", "suggested_name", "completeness", "members", "entries", "limits",
                 "extensions", "requires"},
                Others::kRefuse);
    root.Expect("schema", "microsandbox.snapshot-archive/1");
    return root;
  }

  // Throws kUnsupportedOperation if the archive needs something that this library does not know.
  void CheckUnderstood(const Fields& root) {
    CheckRequires(root);
    if (!layered_) {
      const Json& protection = root.At("protection_requirements");
      if (!protection.is_array()) {
        MalformedType("protection_requirements", "an array", protection);
      }
      if (!protection.empty()) {
        Throw(
            ErrorKind::kUnsupportedOperation,
            "the archive is protected: {} has protection_requirements {}, which this library does "
            "not support; import it with the release that wrote it",
            kInventoryPath, Quoted(protection.dump()));
      }
    }
    const std::string completeness = root.Text("completeness");
    if (incremental_ && completeness != "incremental") {
      Malformed("completeness",
                fmt::format("must be 'incremental', since '{}' is required, but is '{}'",
                            kBackingExtension, Quoted(completeness)));
    }
    if (!incremental_ && completeness != "boot-complete") {
      Throw(ErrorKind::kUnsupportedOperation,
            "the archive is incomplete: {} has completeness '{}', not 'boot-complete'; export the "
            "snapshot again with everything that it needs to boot",
            kInventoryPath, Quoted(completeness));
    }
  }

  void CheckRequires(const Fields& root) {
    for (const std::string& name : root.TextList("requires")) {
      bool* known = nullptr;
      if (name == kMemberHash) known = &hashed_;
      // Only this library writes it, so 0.7 archives cannot have it.
      if (name == kBackingExtension && !layered_) known = &incremental_;
      if (known == nullptr) {
        Throw(ErrorKind::kUnsupportedOperation,
              "the archive requires '{}', which this library does not support; import it with the "
              "release that wrote it",
              Quoted(name));
      }
      if (*known) Malformed("requires", fmt::format("lists '{}' twice", name));
      *known = true;
    }
  }

  // Returns the digests under kBackingExtension.
  static std::vector<std::string> ReadNeeded(const Json& extensions) {
    const std::string path = fmt::format("extensions['{}']", kBackingExtension);
    const auto list = extensions.find(kBackingExtension);
    if (list == extensions.end() || !list->is_array() || list->empty()) {
      Malformed(path, "must be a non-empty array of digests");
    }
    if (list->size() > kMaxNeeded) {
      Malformed(path, fmt::format("has {} elements, but at most {} are allowed", list->size(),
                                  kMaxNeeded));
    }
    std::vector<std::string> needed;
    for (const Json& digest : *list) {
      if (!digest.is_string() || !base::IsDigest(digest.get_ref<const std::string&>(), "sha256")) {
        Malformed(path, "has an element that is not 'sha256:' and 64 lower-case hex digits");
      }
      needed.push_back(digest.get<std::string>());
    }
    return needed;
  }

  // Checks the suggested name, since a reader may use it as the name of a directory.
  static void CheckSuggestedName(const Fields& root) {
    if (root.IsNull("suggested_name")) return;
    const std::string name = root.AnyText("suggested_name");
    if (!base::IsPlainFileName(name) || base::HasControlCharacter(name)) {
      Malformed("suggested_name",
                fmt::format("must be a plain file name, but is '{}'", Quoted(name)));
    }
  }

  void CheckSnapshots(const Fields& root) {
    const std::string field = layered_ ? "members" : "snapshots";
    const auto snapshots = SortedBy(&ArchivedSnapshot::id, arrived_.snapshots);
    const Json& list = ArrayOf(root, field, snapshots.size());
    for (std::size_t i = 0; i < snapshots.size(); ++i) {
      const std::string path = fmt::format("{}[{}]", field, i);
      const Fields snapshot =
          layered_ ? Fields(list[i], path, {"snapshot_id", "descriptor_path", "descriptor_digest"},
                            Others::kRefuse)
                   : Fields(list[i], path, {"snapshot_id", "descriptor"}, Others::kRefuse);
      snapshot.Expect("snapshot_id", snapshots[i]->id);
      snapshot.Expect(layered_ ? "descriptor_path" : "descriptor", snapshots[i]->manifest_path);
      if (layered_) snapshot.Expect("descriptor_digest", snapshots[i]->manifest_digest);
    }
  }

  void CheckEntries(const Fields& root) {
    const auto members = SortedBy(&Member::path, arrived_.members);
    const Json& list = root.At("entries");
    if (!list.is_array()) MalformedType("entries", "an array", list);
    CheckPaths(list, members);
    for (std::size_t i = 0; i < members.size(); ++i) CheckEntry(list[i], *members[i]);
  }

  // Throws unless the entries have exactly the paths of the members, in the same order.
  static void CheckPaths(const Json& list, const std::vector<const Member*>& members) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      const Fields entry(list[i], fmt::format("entries[{}]", i), {"path"}, Others::kIgnore);
      if (i >= members.size()) {
        Malformed(entry.PathOf("path"),
                  fmt::format("is '{}', but the archive has only {}", Quoted(entry.Text("path")),
                              base::Count(members.size(), "file")));
      }
      entry.Expect("path", members[i]->path);
    }
    if (list.size() < members.size()) {
      Malformed("entries", fmt::format("lacks '{}', which is in the archive",
                                       Quoted(members[list.size()]->path)));
    }
  }

  void CheckEntry(const Json& value, const Member& member) {
    const std::string path = fmt::format("entries['{}']", Quoted(member.path));
    const Fields entry = layered_
                             ? Fields(value, path,
                                      {"path", "owner_snapshot", "kind", "included", "encoded_size",
                                       "apparent_size", "sparse_ranges", "integrity"},
                                      Others::kRefuse, {"transport_integrity"})
                             : Fields(value, path,
                                      {"path", "owner_snapshot", "kind", "included", "encoded_size",
                                       "apparent_size", "integrity"},
                                      Others::kRefuse, {"transport_integrity"});
    CheckOwner(entry, member);
    entry.Expect("kind", KindName(member.kind));
    entry.Expect("included", true);
    entry.Expect("encoded_size", member.encoded_size);
    entry.Expect("apparent_size", member.apparent_size);
    if (layered_) CheckRanges(entry, member);
    CheckIntegrity(entry, member);
    CheckTransport(entry, member);
  }

  void CheckOwner(const Fields& entry, const Member& member) {
    if (member.owner) return entry.Expect("owner_snapshot", *member.owner);
    if (member.kind != MemberKind::kPayload) return entry.Expect("owner_snapshot", nullptr);
    const std::string owner = entry.Text("owner_snapshot");
    const auto& snapshots = arrived_.snapshots;
    if (std::none_of(snapshots.begin(), snapshots.end(),
                     [&](const ArchivedSnapshot& snapshot) { return snapshot.id == owner; })) {
      Malformed(entry.PathOf("owner_snapshot"),
                fmt::format("is '{}', which is not a snapshot of the archive", Quoted(owner)));
    }
  }

  static void CheckRanges(const Fields& entry, const Member& member) {
    const Json& list = ArrayOf(entry, "sparse_ranges", member.ranges.size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      const disk::Extent& range = member.ranges[i];
      const Json& found = list[i];
      const bool pair = found.is_array() && found.size() == 2 && found[0].is_number_unsigned() &&
                        found[1].is_number_unsigned();
      if (!pair || found[0] != range.offset || found[1] != range.length) {
        Malformed(
            fmt::format("{}[{}]", entry.PathOf("sparse_ranges"), i),
            fmt::format("is {}, not [{},{}]", Quoted(found.dump()), range.offset, range.length));
      }
    }
  }

  static void CheckIntegrity(const Fields& entry, const Member& member) {
    const std::string path = entry.PathOf("integrity");
    if (!member.integrity) return entry.Expect("integrity", nullptr);
    const artifact::Integrity& expected = *member.integrity;
    std::optional<std::uint64_t> size = member.apparent_size;
    const artifact::Integrity found = artifact::ReadIntegrity(entry.At("integrity"), path, size);
    if (found != expected) {
      Malformed(path, fmt::format("is {} {}, not {} {}", found.algorithm, found.digest,
                                  expected.algorithm, expected.digest));
    }
  }

  // Checks transport_integrity, which early releases do not write.
  void CheckTransport(const Fields& entry, const Member& member) const {
    if (!hashed_ && !entry.Has("transport_integrity")) return;
    const Fields transport(entry.At("transport_integrity"), entry.PathOf("transport_integrity"),
                           {"algorithm", "digest"}, Others::kRefuse);
    transport.Expect("algorithm", kMemberHash);
    transport.Expect("digest", member.transport_digest);
  }

  // Checks the fields of a kInventory that say how much was exported.
  void CheckExtent(const Fields& root) {
    root.Expect("with_image", std::any_of(arrived_.members.begin(), arrived_.members.end(),
                                          [](const Member& member) {
                                            return member.kind == MemberKind::kImageMetadata ||
                                                   member.kind == MemberKind::kImageObject;
                                          }));
    // with_parents may also be true for a single snapshot, since that may have no parents.
    if (root.At("with_parents") != true) root.Expect("with_parents", arrived_.snapshots.size() > 1);
  }

  // Checks the sums in a kLayered inventory. They are over the entries, so without the inventory
  // itself.
  void CheckLimits(const Fields& root) {
    std::uint64_t encoded = 0;
    std::uint64_t apparent = 0;
    for (const Member& member : arrived_.members) {
      encoded += member.encoded_size;
      apparent += member.apparent_size;
    }
    const Fields limits(root.At("limits"), "limits",
                        {"entry_count", "encoded_bytes", "apparent_bytes"}, Others::kRefuse);
    limits.Expect("entry_count", std::uint64_t{arrived_.members.size()});
    limits.Expect("encoded_bytes", encoded);
    limits.Expect("apparent_bytes", apparent);
  }

  const Inventory& arrived_;
  const bool layered_;
  bool hashed_ = false;       // Each entry must have transport_integrity.
  bool incremental_ = false;  // The archive needs the snapshots under kBackingExtension.
};

}  // namespace

std::vector<std::string> CheckInventory(std::string_view text, const Inventory& arrived) {
  try {
    return InventoryChecker(arrived).Check(base::ParseJson(text, kMaxInventoryValues));
  } catch (const std::invalid_argument& e) {
    Throw(ErrorKind::kSnapshotIntegrity, "{}: {}; copy or export the archive again", kInventoryPath,
          e.what());
  } catch (const Json::exception& e) {
    Throw(ErrorKind::kSnapshotIntegrity, "{}: {}; copy or export the archive again", kInventoryPath,
          e.what());
  }
}

}  // namespace msb::archive
