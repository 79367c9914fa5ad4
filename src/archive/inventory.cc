// SPDX-License-Identifier: Apache-2.0

#include "src/archive/inventory.h"

#include <fmt/core.h>

#include <algorithm>

#include "src/archive/member_hash.h"
#include "src/artifact/manifest_json.h"
#include "src/base/json.h"

namespace msb::archive {
namespace {

using base::AppendJsonOptional;
using base::AppendJsonString;

void AppendSnapshots(std::string& out, const std::vector<ArchivedSnapshot>& snapshots) {
  out += '[';
  for (const char* separator = ""; const ArchivedSnapshot& snapshot : snapshots) {
    out += separator;
    out += R"({"snapshot_id":)";
    AppendJsonString(out, snapshot.id);
    out += R"(,"descriptor":)";
    AppendJsonString(out, snapshot.manifest_path);
    out += '}';
    separator = ",";
  }
  out += ']';
}

void AppendEntry(std::string& out, const Member& member) {
  out += R"({"path":)";
  AppendJsonString(out, member.path);
  out += R"(,"owner_snapshot":)";
  AppendJsonOptional(out, member.owner);
  out += fmt::format(
      R"(,"kind":"{}","included":true,"encoded_size":{},"apparent_size":{},"integrity":)",
      KindName(member.kind), member.encoded_size, member.apparent_size);
  artifact::AppendIntegrity(out, member.integrity, member.apparent_size);
  out += fmt::format(R"(,"transport_integrity":{{"algorithm":"{}","digest":"{}"}}}})", kMemberHash,
                     member.transport_digest);
}

void AppendNeeded(std::string& out, const std::vector<std::string>& needed) {
  out += fmt::format(R"("{}":[)", kBackingExtension);
  for (const char* separator = ""; const std::string& digest : needed) {
    out += separator;
    AppendJsonString(out, digest);
    separator = ",";
  }
  out += ']';
}

}  // namespace

std::string WriteInventory(Inventory inventory) {
  std::sort(inventory.snapshots.begin(), inventory.snapshots.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  std::sort(inventory.members.begin(), inventory.members.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  std::string out = R"({"schema":1,"artifact":"snapshot-archive","head":)";
  AppendJsonString(out, inventory.head);
  out += R"(,"suggested_name":)";
  AppendJsonOptional(out, inventory.suggested_name);
  out += fmt::format(R"(,"completeness":"{}","with_parents":{},"with_image":{},"snapshots":)",
                     inventory.needed.empty() ? "boot-complete" : "incremental",
                     inventory.with_parents, inventory.with_image);
  AppendSnapshots(out, inventory.snapshots);
  out += R"(,"entries":[)";
  for (const char* separator = ""; const Member& member : inventory.members) {
    out += separator;
    AppendEntry(out, member);
    separator = ",";
  }
  out += R"(],"protection_requirements":[],"extensions":{)";
  if (!inventory.needed.empty()) AppendNeeded(out, inventory.needed);
  out += fmt::format(R"(}},"requires":["{}")", kMemberHash);
  if (!inventory.needed.empty()) out += fmt::format(R"(,"{}")", kBackingExtension);
  out += "]}";
  return out;
}

}  // namespace msb::archive
