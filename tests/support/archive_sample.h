// SPDX-License-Identifier: Apache-2.0
//
// Small, valid archives of each layout, in parts that a test can change before it assembles them.

#ifndef MSB_TESTS_SUPPORT_ARCHIVE_SAMPLE_H_
#define MSB_TESTS_SUPPORT_ARCHIVE_SAMPLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/disk.h"
#include "tests/support/tar_builder.h"

namespace msb::test {

using Json = nlohmann::ordered_json;

enum class SampleLayout { kLegacy, kInventory, kLayered };
constexpr SampleLayout kSampleLayouts[] = {SampleLayout::kLegacy, SampleLayout::kInventory,
                                           SampleLayout::kLayered};

// An OCI image: its pinned reference and digest, and its files in the cache as pairs of "KIND/FILE"
// and content.
struct SampleImage {
  Image image;
  std::vector<std::pair<std::string, std::string>> files;
};

// Returns an image whose VMDK refers to files in the cache of another machine. Two images differ
// only in the values that are derived from their names.
SampleImage MakeSampleImage(const std::string& name = "sample:1");

struct SampleOptions {
  std::uint32_t seed = 1;  // Seed of the noise in the upper, and of the ids.
  bool sparse = true;      // Whether the upper's entry is sparse; the content is the same.
  // Algorithm of the recorded integrity; if empty, none is recorded. Default: the algorithm that
  // the releases of this layout use.
  std::optional<std::string> algorithm = {};
  std::optional<std::string> parent = {};
  std::map<std::string, std::string> labels = {{"owner", "sample"}, {"stage", "post-deps"}};
  Image image = MakeSampleImage().image;
  // Called with the manifest before its digest is computed.
  std::function<void(Json& manifest)> edit = {};
};

// A snapshot of a sparse upper: 7 data extents, so that the map of its tar entry needs an extension
// record, and a hole at the end.
struct SampleSnapshot {
  SampleLayout layout = SampleLayout::kInventory;
  std::string id;  // The digest; for kLayered the snapshot id.
  std::string digest;
  std::string manifest;                  // The manifest's bytes.
  std::string upper;                     // The upper's content, with zeros for holes.
  std::optional<std::string> integrity;  // The digest that the manifest records.
  std::string metadata;                  // kLayered only: content of metadata.json.
  std::string layer_id;                  // kLayered only.
  SampleOptions options;
};

SampleSnapshot MakeSampleSnapshot(SampleLayout layout, const SampleOptions& options = {});

// Returns (offset, length) of each data extent in a sample's upper.
std::vector<std::pair<std::uint64_t, std::uint64_t>> SampleExtents();

struct SampleArchive {
  SampleLayout layout = SampleLayout::kInventory;
  std::vector<SampleSnapshot> snapshots;  // Parents first; the last is the head.
  std::vector<TarEntry> entries;          // All except archive.json.

  // Returns the first entry whose name ends with suffix.
  TarEntry& Entry(std::string_view suffix);
  // Returns the archive.json that describes the current entries.
  Json Inventory() const;
  // Return an archive of the entries and an inventory: Tar() writes Inventory(), or none for
  // kLegacy; TarWith() writes the given one.
  std::string Tar() const;
  std::string TarWith(const Json& inventory) const;
};

SampleArchive MakeSampleArchive(std::vector<SampleSnapshot> snapshots,
                                const std::vector<SampleImage>& images = {});
// Makes an archive of one snapshot.
SampleArchive MakeSampleArchive(SampleLayout layout, const SampleOptions& options = {});
// Makes an archive of a parent and its child.
SampleArchive MakeSampleChain(SampleLayout layout);
// Makes an archive of one snapshot and its image.
SampleArchive MakeSampleWithImage(SampleLayout layout);

TarEntry InventoryEntry(const Json& inventory);

// Turns a dense entry into a sparse one that stores these ranges of its content.
void MakeSparse(TarEntry& entry, std::vector<TarRange> ranges);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_ARCHIVE_SAMPLE_H_
