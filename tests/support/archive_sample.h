// Small sound archives of each layout, in parts that a test changes before it puts them together.

#ifndef MSB_TESTS_SUPPORT_ARCHIVE_SAMPLE_H_
#define MSB_TESTS_SUPPORT_ARCHIVE_SAMPLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/vmm/backend.h"
#include "tests/support/tar_builder.h"

namespace msb::test {

using Json = nlohmann::ordered_json;

enum class SampleLayout { kLegacy, kInventory, kLayered };

// An OCI image: what is pinned, and its files in the cache, "KIND/FILE" and content.
struct SampleImage {
  vmm::Image image;
  std::vector<std::pair<std::string, std::string>> files;
};

// The vmdk names the files in a cache of another machine. The name is all that differs between two
// images.
SampleImage MakeSampleImage(const std::string& name = "sample:1");

struct SampleOptions {
  std::uint32_t seed = 1;  // Of the noise in the upper, and of ids.
  bool sparse = true;      // How the entry of the upper is written; the content is the same.
  // Of the integrity that is recorded; empty: none is. Default: what the layout's releases use.
  std::optional<std::string> algorithm = {};
  std::optional<std::string> parent = {};
  std::map<std::string, std::string> labels = {{"owner", "sample"}, {"stage", "post-deps"}};
  vmm::Image image = MakeSampleImage().image;
  // Called with the manifest before its digest is taken.
  std::function<void(Json& manifest)> edit = {};
};

// A snapshot of an upper with holes, also at its end: 7 ranges, one more than fit a tar header and
// its map's end.
struct SampleSnapshot {
  SampleLayout layout = SampleLayout::kInventory;
  std::string id;  // The digest; kLayered: the snapshot id.
  std::string digest;
  std::string manifest;                  // Its bytes.
  std::string upper;                     // Its content, holes as zeros.
  std::optional<std::string> integrity;  // As recorded.
  std::string metadata;                  // kLayered: metadata.json
  std::string layer_id;                  // kLayered
  SampleOptions options;
};

SampleSnapshot MakeSampleSnapshot(SampleLayout layout, const SampleOptions& options = {});

// (offset, length) of the data in a sample's upper.
std::vector<std::pair<std::uint64_t, std::uint64_t>> SampleExtents();

struct SampleArchive {
  SampleLayout layout = SampleLayout::kInventory;
  std::vector<SampleSnapshot> snapshots;  // Parents first; the last is the head.
  std::vector<TarEntry> entries;          // All but archive.json.

  // The first entry whose name ends so.
  TarEntry& Entry(std::string_view suffix);
  // What archive.json has to say of the entries as they are now.
  Json Inventory() const;
  // An archive of the entries and, but for kLegacy, of that inventory or another.
  std::string Tar() const;
  std::string TarWith(const Json& inventory) const;
};

SampleArchive MakeSampleArchive(std::vector<SampleSnapshot> snapshots,
                                const std::vector<SampleImage>& images = {});
// Of one snapshot.
SampleArchive MakeSampleArchive(SampleLayout layout, const SampleOptions& options = {});
// Of a parent and its child.
SampleArchive MakeSampleChain(SampleLayout layout);
// Of one snapshot and its image.
SampleArchive MakeSampleWithImage(SampleLayout layout);

TarEntry InventoryEntry(const Json& inventory);

// Turns a dense entry into a sparse one of the same content, with these ranges.
void MakeSparse(TarEntry& entry, std::vector<TarRange> ranges);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_ARCHIVE_SAMPLE_H_
