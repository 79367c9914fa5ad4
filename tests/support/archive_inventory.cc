// SPDX-License-Identifier: Apache-2.0

#include "tests/support/archive_inventory.h"

#include <blake3.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/base/digest.h"

namespace msb::test {
namespace {

constexpr char kMemberHash[] = "msb-archive-member-blake3-v1";

class Blake3 {
 public:
  Blake3() { blake3_hasher_init(&state_); }
  void Add(std::string_view bytes) { blake3_hasher_update(&state_, bytes.data(), bytes.size()); }
  void Add(std::uint64_t number) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(number >> (8 * i));
    Add(bytes);
  }
  void AddSized(std::string_view bytes) {
    Add(bytes.size());
    Add(bytes);
  }
  std::string Finish() {
    std::array<std::uint8_t, BLAKE3_OUT_LEN> hash;
    blake3_hasher_finalize(&state_, hash.data(), hash.size());
    return "blake3:" + base::Hex(hash);
  }

 private:
  blake3_hasher state_;
};

bool IsMember(const TarEntry& entry) { return entry.type == '0' || entry.type == 'S'; }

std::uint64_t ApparentSize(const TarEntry& entry) {
  return entry.type == 'S' ? entry.apparent_size : entry.content.size();
}

std::string KindOf(const std::string& path) {
  if (path.starts_with("images/manifests/")) return "image-metadata";
  if (path.starts_with("images/")) return "image-object";
  if (path.ends_with("/snapshot.json")) return "snapshot-descriptor";
  if (path.ends_with("/metadata.json")) return "snapshot-metadata";
  return "file-payload";
}

const SampleSnapshot* OwnerOf(const SampleArchive& archive, const TarEntry& entry) {
  if (entry.name.starts_with("images/")) return nullptr;
  for (const SampleSnapshot& snapshot : archive.snapshots) {
    const std::string hex = snapshot.id.substr(snapshot.id.find(':') + 1);
    if (entry.name.find("/" + hex + "/") != std::string::npos) return &snapshot;
    if (entry.name == "layers/" + snapshot.layer_id + ".raw") return &snapshot;
  }
  return &archive.snapshots.back();
}

// Returns the integrity that the owner's manifest records, with its keys in the order that
// inventories use. Returns null if the manifest records none or is not valid JSON.
Json PayloadIntegrity(const SampleSnapshot& owner) {
  const Json manifest = Json::parse(owner.manifest, nullptr, false);
  for (const char* place :
       {"/upper/integrity", "/state/upper/integrity", "/state/layers/0/payload/integrity"}) {
    const Json::json_pointer pointer(place);
    if (!manifest.contains(pointer)) continue;
    const Json& recorded = manifest.at(pointer);
    if (!recorded.is_object()) return recorded;
    Json ordered = Json::object();
    for (const char* key : {"algorithm", "digest", "root", "logical_size", "leaf_size"}) {
      if (recorded.contains(key)) ordered[key] = recorded[key];
    }
    return ordered;
  }
  return nullptr;
}

std::string TransportDigest(const TarEntry& entry) {
  Blake3 hash;
  hash.Add(std::string_view(kMemberHash, sizeof kMemberHash));  // With its NUL.
  hash.AddSized(KindOf(entry.name));
  hash.AddSized(entry.name);
  hash.Add(entry.content.size());
  hash.Add(ApparentSize(entry));
  hash.Add(entry.ranges.size());
  for (const TarRange& range : entry.ranges) {
    hash.Add(range.offset);
    hash.Add(range.length);
  }
  hash.Add(entry.content);
  return hash.Finish();
}

Json EntryJson(const SampleArchive& archive, const TarEntry& entry) {
  const SampleSnapshot* owner = OwnerOf(archive, entry);
  const std::string kind = KindOf(entry.name);
  Json json = {{"path", entry.name},
               {"owner_snapshot", owner != nullptr ? Json(owner->id) : Json()},
               {"kind", kind},
               {"included", true},
               {"encoded_size", entry.content.size()},
               {"apparent_size", ApparentSize(entry)}};
  if (archive.layout == SampleLayout::kLayered) {
    Json& ranges = json["sparse_ranges"] = Json::array();
    for (const TarRange& range : entry.ranges) {
      ranges.push_back(Json::array({range.offset, range.length}));
    }
  }
  json["integrity"] = kind == "file-payload" ? PayloadIntegrity(*owner)
                                             : Json{{"algorithm", "sha256"},
                                                    {"digest", base::Sha256Digest(entry.content)}};
  json["transport_integrity"] = {{"algorithm", kMemberHash}, {"digest", TransportDigest(entry)}};
  return json;
}

Json EntriesJson(const SampleArchive& archive) {
  std::vector<Json> entries;
  for (const TarEntry& entry : archive.entries) {
    if (IsMember(entry)) entries.push_back(EntryJson(archive, entry));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Json& a, const Json& b) {
    return a["path"].get_ref<const std::string&>() < b["path"].get_ref<const std::string&>();
  });
  return entries;
}

// Lists the snapshots, ordered by id.
Json SnapshotsJson(const SampleArchive& archive) {
  std::vector<const SampleSnapshot*> snapshots;
  for (const SampleSnapshot& snapshot : archive.snapshots) snapshots.push_back(&snapshot);
  std::stable_sort(snapshots.begin(), snapshots.end(),
                   [](const auto* a, const auto* b) { return a->id < b->id; });
  Json list = Json::array();
  for (const SampleSnapshot* snapshot : snapshots) {
    const std::string path =
        "snapshots/" + snapshot->id.substr(snapshot->id.find(':') + 1) + "/snapshot.json";
    if (archive.layout == SampleLayout::kLayered) {
      list.push_back({{"snapshot_id", snapshot->id},
                      {"descriptor_path", path},
                      {"descriptor_digest", snapshot->digest}});
    } else {
      list.push_back({{"snapshot_id", snapshot->id}, {"descriptor", path}});
    }
  }
  return list;
}

Json LimitsJson(const SampleArchive& archive) {
  std::uint64_t count = 0;
  std::uint64_t encoded = 0;
  std::uint64_t apparent = 0;
  for (const TarEntry& entry : archive.entries) {
    if (!IsMember(entry)) continue;
    ++count;
    encoded += entry.content.size();
    apparent += ApparentSize(entry);
  }
  return {{"entry_count", count}, {"encoded_bytes", encoded}, {"apparent_bytes", apparent}};
}

Json LayeredInventory(const SampleArchive& archive) {
  Json names = Json::object();
  for (const SampleSnapshot& snapshot : archive.snapshots) {
    names[snapshot.id] = "member-" + std::to_string(snapshot.options.seed);
  }
  return {{"schema", "microsandbox.snapshot-archive/1"},
          {"head", archive.snapshots.back().id},
          {"suggested_name", "sample"},
          {"completeness", "boot-complete"},
          {"members", SnapshotsJson(archive)},
          {"entries", EntriesJson(archive)},
          {"limits", LimitsJson(archive)},
          {"extensions", {{"msb-snapshot-member-names", names}}},
          {"requires", {kMemberHash}}};
}

}  // namespace

Json InventoryOf(const SampleArchive& archive) {
  if (archive.layout == SampleLayout::kLayered) return LayeredInventory(archive);
  const bool with_image =
      std::any_of(archive.entries.begin(), archive.entries.end(),
                  [](const TarEntry& entry) { return entry.name.starts_with("images/"); });
  return {{"schema", 1},
          {"artifact", "snapshot-archive"},
          {"head", archive.snapshots.back().id},
          {"suggested_name", "sample"},
          {"completeness", "boot-complete"},
          {"with_parents", archive.snapshots.size() > 1},
          {"with_image", with_image},
          {"snapshots", SnapshotsJson(archive)},
          {"entries", EntriesJson(archive)},
          {"protection_requirements", Json::array()},
          {"extensions", Json::object()},
          {"requires", {kMemberHash}}};
}

}  // namespace msb::test
