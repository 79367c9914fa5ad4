// SPDX-License-Identifier: Apache-2.0
//
// Writes the seeds of fuzz_import: small, valid archives of each layout, plain and compressed.
//   make_import_seeds DIR

#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "tests/fuzz/memory_file.h"
#include "tests/support/archive_sample.h"
#include "tests/support/support.h"

namespace msb::fuzz {
namespace {

namespace fs = std::filesystem;

using test::Json;
using test::MakeSampleSnapshot;
using test::SampleArchive;
using test::SampleImage;
using test::SampleLayout;
using test::SampleOptions;
using test::SampleSnapshot;
using test::TarRange;

// The disk of a seed, which replaces the larger one of a sample.
struct Upper {
  std::string content;
  std::vector<TarRange> ranges;
};

// Returns a disk with more ranges than a tar header has room for, and a hole at the end.
Upper SmallUpper(std::uint32_t seed) {
  constexpr std::size_t kDataBytes = 512;
  Upper upper{std::string(8192, '\0'), {}};
  for (std::size_t at = 0; at < 6144; at += 2 * kDataBytes) {
    upper.ranges.push_back({at, kDataBytes});
    upper.content.replace(at, kDataBytes, test::Noise(kDataBytes, seed++));
  }
  upper.ranges.push_back({upper.content.size(), 0});
  return upper;
}

// Returns a disk of several regions, which are hashed and written separately, with data in the
// first and the last.
Upper LongUpper() {
  Upper upper{std::string(6 << 20, '\0'), {{0, 1024}, {(6 << 20) - 1024, 1024}}};
  for (const TarRange& range : upper.ranges) {
    upper.content.replace(range.offset, range.length, test::Noise(range.length, 1));
  }
  return upper;
}

// Returns a disk that libarchive reports as dense even if its entry is sparse.
Upper FilledUpper() { return {test::Noise(2048, 1), {{0, 2048}}}; }

void Record(Json& integrity, const std::string& content) {
  if (integrity.is_null()) return;
  const MemoryFile file("upper");
  file.Fill(content);
  const artifact::Integrity found = artifact::ComputeIntegrity(
      Context::Background(), file.fd(), content.size(), integrity["algorithm"].get<std::string>());
  const bool merkle = integrity.contains("root");
  integrity[merkle ? "root" : "digest"] = found.digest;
  if (merkle) integrity["logical_size"] = content.size();
}

// Makes content the disk that a manifest describes.
void Record(SampleLayout layout, Json& manifest, const std::string& content) {
  if (layout == SampleLayout::kLayered) {
    manifest["state"]["virtual_size"] = content.size();
    Json& layer = manifest["state"]["layers"][0];
    layer["virtual_size"] = content.size();
    Record(layer["payload"]["integrity"], content);
  } else {
    Json& upper = layout == SampleLayout::kLegacy ? manifest["upper"] : manifest["state"]["upper"];
    upper["size_bytes"] = content.size();
    Record(upper["integrity"], content);
  }
}

SampleSnapshot MakeSnapshot(SampleLayout layout, SampleOptions options, const Upper& upper) {
  options.edit = [layout, &upper, edit = options.edit](Json& manifest) {
    Record(layout, manifest, upper.content);
    if (edit) edit(manifest);
  };
  SampleSnapshot snapshot = MakeSampleSnapshot(layout, options);
  snapshot.options.edit = nullptr;
  return snapshot;
}

// Makes an archive in which uppers replace the disks of the snapshots, in this order.
SampleArchive MakeArchive(std::vector<SampleSnapshot> snapshots, const std::vector<Upper>& uppers,
                          const std::vector<SampleImage>& images = {}) {
  SampleArchive archive = test::MakeSampleArchive(std::move(snapshots), images);
  std::size_t next = 0;
  for (test::TarEntry& entry : archive.entries) {
    if (!entry.name.ends_with("/upper.ext4") && !entry.name.starts_with("layers/")) continue;
    const Upper& upper = uppers.at(next);
    const bool sparse = archive.snapshots.at(next++).options.sparse;
    entry = {.name = entry.name, .content = upper.content};
    if (sparse) test::MakeSparse(entry, upper.ranges);
  }
  return archive;
}

SampleArchive MakeSingle(SampleLayout layout, const SampleOptions& options, const Upper& upper,
                         const std::vector<SampleImage>& images = {}) {
  return MakeArchive({MakeSnapshot(layout, options, upper)}, {upper}, images);
}

// Makes an archive of a parent and its child. If shared is set (kLayered only), the child's disk is
// backed by its parent's.
SampleArchive MakeChain(SampleLayout layout, bool shared) {
  const std::vector<Upper> uppers = {SmallUpper(1), SmallUpper(2)};
  const SampleSnapshot parent = MakeSnapshot(layout, {.seed = 1, .sparse = false}, uppers[0]);
  SampleOptions options{.seed = 2, .sparse = false, .parent = parent.id};
  if (shared) {
    options.edit = [&](Json& manifest) {
      Json& layers = manifest["state"]["layers"];
      layers.push_back(Json::parse(parent.manifest)["state"]["layers"][0]);
      layers[0]["backing"] = parent.layer_id;
    };
  }
  SampleArchive archive = MakeArchive({parent, MakeSnapshot(layout, options, uppers[1])}, uppers);
  // All entries that describe a disk come before it.
  std::stable_partition(archive.entries.begin(), archive.entries.end(),
                        [](const auto& entry) { return entry.name.ends_with(".json"); });
  return archive;
}

SampleImage MakeDiskImage() {
  const std::string disk = test::Noise(1024, 3);
  const std::string digest = base::Sha256Digest(disk);
  return {.image = {.ref = "/srv/disk.img", .manifest_digest = digest},
          .files = {{"disks/sha256_" + digest.substr(7) + ".raw", disk}}};
}

class Writer {
 public:
  explicit Writer(fs::path dir) : dir_(std::move(dir)) {}

  void Write(const std::string& name, const SampleArchive& archive) const {
    const std::string tar = archive.Tar();
    test::WriteFile(dir_ / (name + ".tar"), tar);
    std::string frame(ZSTD_compressBound(tar.size()), '\0');
    const std::size_t size = ZSTD_compress(frame.data(), frame.size(), tar.data(), tar.size(), 3);
    if (ZSTD_isError(size) != 0) throw std::runtime_error(ZSTD_getErrorName(size));
    test::WriteFile(dir_ / (name + ".tar.zst"), frame.substr(0, size));
  }

 private:
  fs::path dir_;
};

void WriteSeeds(const Writer& writer, SampleLayout layout, const std::string& name) {
  const Upper upper = SmallUpper(1);
  writer.Write(name + "-sparse", MakeSingle(layout, {}, upper));
  writer.Write(name + "-dense", MakeSingle(layout, {.sparse = false}, upper));
  writer.Write(name + "-sha256", MakeSingle(layout, {.algorithm = "sha256"}, upper));
  writer.Write(name + "-unrecorded", MakeSingle(layout, {.algorithm = ""}, upper));
  writer.Write(name + "-long", MakeSingle(layout, {}, LongUpper()));
  writer.Write(name + "-filled", MakeSingle(layout, {}, FilledUpper()));
  writer.Write(name + "-chain", MakeChain(layout, false));
  if (layout == SampleLayout::kLayered) writer.Write(name + "-shared", MakeChain(layout, true));
  for (const auto& [kind, image] :
       {std::pair("image", test::MakeSampleImage()), std::pair("disk-image", MakeDiskImage())}) {
    writer.Write(name + "-" + kind, MakeSingle(layout, {.image = image.image}, upper, {image}));
  }
}

}  // namespace
}  // namespace msb::fuzz

int main(int argc, char** argv) {
  using namespace msb::fuzz;
  if (argc != 2) {
    std::fputs("usage: make_import_seeds DIR\n", stderr);
    return 2;
  }
  const Writer writer(argv[1]);
  WriteSeeds(writer, msb::test::SampleLayout::kLegacy, "legacy");
  WriteSeeds(writer, msb::test::SampleLayout::kInventory, "inventory");
  WriteSeeds(writer, msb::test::SampleLayout::kLayered, "layered");
}
