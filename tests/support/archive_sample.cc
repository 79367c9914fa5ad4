// SPDX-License-Identifier: Apache-2.0

#include "tests/support/archive_sample.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "src/base/file.h"
#include "tests/support/archive_inventory.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

constexpr std::uint64_t kUpperBytes = 144 << 10;
constexpr std::uint64_t kLeafBytes = 64 << 10;

std::string HexId(const std::string& prefix, std::uint32_t seed) {
  return prefix + base::Sha256Digest(prefix + std::to_string(seed)).substr(7, 32);
}

std::string UpperContent(std::uint32_t seed) {
  std::string content(kUpperBytes, '\0');
  const std::string noise = Noise(kUpperBytes, seed);
  for (const auto& [offset, length] : SampleExtents()) {
    content.replace(offset, length, noise, offset, length);
  }
  return content;
}

std::string IntegrityOf(const std::string& content, const std::string& algorithm) {
  const TempDir dir;
  WriteFile(dir / "content", content);
  const base::UniqueFd fd(open((dir / "content").c_str(), O_RDONLY | O_CLOEXEC));
  return artifact::ComputeIntegrity(Context::Background(), fd.get(), content.size(), algorithm)
      .digest;
}

Json IntegrityJson(const SampleSnapshot& snapshot) {
  if (!snapshot.integrity) return nullptr;
  const std::string& algorithm = *snapshot.options.algorithm;
  if (algorithm != artifact::kFileMerkle) {
    return {{"algorithm", algorithm}, {"digest", *snapshot.integrity}};
  }
  return {{"algorithm", algorithm},
          {"root", *snapshot.integrity},
          {"logical_size", snapshot.upper.size()},
          {"leaf_size", kLeafBytes}};
}

Json OptionalText(const std::optional<std::string>& text) { return text ? Json(*text) : Json(); }

Json LegacyManifest(const SampleSnapshot& snapshot) {
  const SampleOptions& options = snapshot.options;
  return {
      {"schema", 1},
      {"format", "raw"},
      {"fstype", "ext4"},
      {"image", {{"ref", options.image.ref}, {"manifest_digest", options.image.manifest_digest}}},
      {"parent", OptionalText(options.parent)},
      {"created_at", "2026-11-23T12:58:59.427654752+00:00"},
      {"labels", options.labels},
      {"upper",
       {{"file", "upper.ext4"},
        {"size_bytes", snapshot.upper.size()},
        {"integrity", IntegrityJson(snapshot)}}},
      {"source_sandbox", "baseline"}};
}

Json DescriptorManifest(const SampleSnapshot& snapshot) {
  const SampleOptions& options = snapshot.options;
  return {
      {"schema", 1},
      {"artifact", "snapshot"},
      {"scope", "disk"},
      {"created_at", "2026-11-23T12:58:59.427654752Z"},
      {"parent", OptionalText(options.parent)},
      {"image", {{"ref", options.image.ref}, {"manifest_digest", options.image.manifest_digest}}},
      {"source_sandbox", "baseline"},
      {"state",
       {{"kind", "file"},
        {"format", "raw"},
        {"fstype", "ext4"},
        {"upper",
         {{"file", "upper.ext4"},
          {"size_bytes", snapshot.upper.size()},
          {"integrity", IntegrityJson(snapshot)}}}}},
      {"labels", options.labels},
      {"extensions", Json::object()},
      {"requires", Json::array()}};
}

Json LayeredManifest(const SampleSnapshot& snapshot) {
  const SampleOptions& options = snapshot.options;
  const Json layer = {
      {"backing", nullptr},
      {"format", "raw"},
      {"layer_id", snapshot.layer_id},
      {"payload", {{"file_kind", "regular"}, {"integrity", IntegrityJson(snapshot)}}},
      {"virtual_size", snapshot.upper.size()}};
  return {{"capture",
           {{"consistency", "crash-consistent"},
            {"created_at", "2026-11-23T12:58:59.427654752Z"},
            {"source_checkpoint", nullptr},
            {"source_lineage", "baseline"}}},
          {"extensions", Json::object()},
          {"image",
           {{"manifest_digest", options.image.manifest_digest}, {"reference", options.image.ref}}},
          {"parent", OptionalText(options.parent)},
          {"requires", Json::array()},
          {"root_disk", {{"layout", "managed"}}},
          {"schema", "microsandbox.snapshot/1"},
          {"scope", "file"},
          {"snapshot_id", snapshot.id},
          {"state",
           {{"disk_format", "raw"},
            {"filesystem", "ext4"},
            {"head", snapshot.layer_id},
            {"kind", "file"},
            {"layers", {layer}},
            {"virtual_size", snapshot.upper.size()}}}};
}

// Serializes value with its keys sorted at every depth, as in a kLayered manifest.
std::string Sorted(const Json& value) { return nlohmann::json::parse(value.dump()).dump(); }

std::string ManifestEntryName(const SampleSnapshot& snapshot) {
  if (snapshot.layout == SampleLayout::kLegacy) {
    return "sha256-" + snapshot.id.substr(7, 16) + "/manifest.json";
  }
  const bool layered = snapshot.layout == SampleLayout::kLayered;
  return "snapshots/" + (layered ? snapshot.id : snapshot.id.substr(7)) + "/snapshot.json";
}

std::string PayloadEntryName(const SampleSnapshot& snapshot) {
  switch (snapshot.layout) {
    case SampleLayout::kLegacy:
      return "sha256-" + snapshot.id.substr(7, 16) + "/upper.ext4";
    case SampleLayout::kInventory:
      return "files/" + snapshot.id.substr(7) + "/upper.ext4";
    case SampleLayout::kLayered:
      break;
  }
  return "layers/" + snapshot.layer_id + ".raw";
}

TarEntry PayloadEntry(const SampleSnapshot& snapshot) {
  TarEntry entry{.name = PayloadEntryName(snapshot), .content = snapshot.upper};
  if (!snapshot.options.sparse) return entry;
  std::vector<TarRange> ranges;
  for (const auto& [offset, length] : SampleExtents()) ranges.push_back({offset, length});
  ranges.push_back({kUpperBytes, 0});
  MakeSparse(entry, std::move(ranges));
  return entry;
}

}  // namespace

std::vector<std::pair<std::uint64_t, std::uint64_t>> SampleExtents() {
  constexpr std::uint64_t kKi = 1 << 10;
  return {{0, 4 * kKi},        {8 * kKi, 4 * kKi},  {16 * kKi, 4 * kKi}, {24 * kKi, 4 * kKi},
          {32 * kKi, 4 * kKi}, {72 * kKi, 8 * kKi}, {132 * kKi, 4 * kKi}};
}

void MakeSparse(TarEntry& entry, std::vector<TarRange> ranges) {
  const std::string content = std::move(entry.content);
  entry.type = 'S';
  entry.apparent_size = content.size();
  entry.ranges = std::move(ranges);
  entry.content.clear();
  for (const TarRange& range : entry.ranges) {
    entry.content += content.substr(range.offset, range.length);
  }
}

SampleSnapshot MakeSampleSnapshot(SampleLayout layout, const SampleOptions& options) {
  SampleSnapshot snapshot{.layout = layout,
                          .id = {},
                          .digest = {},
                          .manifest = {},
                          .upper = UpperContent(options.seed),
                          .integrity = {},
                          .metadata = {},
                          .layer_id = {},
                          .options = options};
  std::optional<std::string>& algorithm = snapshot.options.algorithm;
  if (!algorithm) {
    algorithm = layout == SampleLayout::kLegacy ? artifact::kSparseSha256 : artifact::kFileMerkle;
  }
  if (!algorithm->empty()) snapshot.integrity = IntegrityOf(snapshot.upper, *algorithm);
  const bool layered = layout == SampleLayout::kLayered;
  if (layered) {
    snapshot.id = HexId("snap_", options.seed);
    snapshot.layer_id = HexId("layer_", options.seed);
    snapshot.metadata =
        Json{{"schema", "microsandbox.snapshot-metadata/1"}, {"labels", options.labels}}.dump();
  }
  Json manifest = layered                           ? LayeredManifest(snapshot)
                  : layout == SampleLayout::kLegacy ? LegacyManifest(snapshot)
                                                    : DescriptorManifest(snapshot);
  if (options.edit) options.edit(manifest);
  snapshot.manifest = layered ? Sorted(manifest) : manifest.dump();
  snapshot.digest = base::Sha256Digest(snapshot.manifest);
  if (!layered) snapshot.id = snapshot.digest;
  return snapshot;
}

SampleArchive MakeSampleArchive(std::vector<SampleSnapshot> snapshots,
                                const std::vector<SampleImage>& images) {
  SampleArchive archive{
      .layout = snapshots.at(0).layout, .snapshots = std::move(snapshots), .entries = {}};
  for (const SampleSnapshot& snapshot : archive.snapshots) {
    archive.entries.push_back({.name = ManifestEntryName(snapshot), .content = snapshot.manifest});
    if (!snapshot.metadata.empty()) {
      archive.entries.push_back(
          {.name = "snapshots/" + snapshot.id + "/metadata.json", .content = snapshot.metadata});
    }
    archive.entries.push_back(PayloadEntry(snapshot));
  }
  const std::string cache = archive.layout == SampleLayout::kLegacy ? "cache/" : "images/";
  for (const SampleImage& image : images) {
    for (const auto& [file, content] : image.files) {
      archive.entries.push_back({.name = cache + file, .content = content});
    }
  }
  return archive;
}

SampleArchive MakeSampleArchive(SampleLayout layout, const SampleOptions& options) {
  std::vector<SampleSnapshot> snapshots = {MakeSampleSnapshot(layout, options)};
  return MakeSampleArchive(std::move(snapshots));
}

SampleArchive MakeSampleChain(SampleLayout layout) {
  SampleSnapshot parent = MakeSampleSnapshot(layout, {.seed = 1});
  SampleSnapshot child = MakeSampleSnapshot(layout, {.seed = 2, .parent = parent.id});
  return MakeSampleArchive({std::move(parent), std::move(child)});
}

SampleArchive MakeSampleWithImage(SampleLayout layout) {
  return MakeSampleArchive({MakeSampleSnapshot(layout)}, {MakeSampleImage()});
}

TarEntry& SampleArchive::Entry(std::string_view suffix) {
  for (TarEntry& entry : entries) {
    if (entry.name.ends_with(suffix)) return entry;
  }
  throw std::invalid_argument("no entry " + std::string(suffix));
}

Json SampleArchive::Inventory() const { return InventoryOf(*this); }

std::string SampleArchive::Tar() const {
  return layout == SampleLayout::kLegacy ? TarArchive(entries) : TarWith(Inventory());
}

std::string SampleArchive::TarWith(const Json& inventory) const {
  std::vector<TarEntry> all = entries;
  all.push_back(InventoryEntry(inventory));
  return TarArchive(all);
}

TarEntry InventoryEntry(const Json& inventory) {
  return {.name = "archive.json", .content = inventory.dump()};
}

}  // namespace msb::test
