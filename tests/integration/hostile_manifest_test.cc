// SPDX-License-Identifier: Apache-2.0
//
// Archives whose manifests are malformed, or do not match their payload.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/base/digest.h"
#include "tests/support/import_home.h"

namespace msb::test {
namespace {

using HostileManifestTest = ImportHome;

Json& IntegrityIn(SampleLayout layout, Json& manifest) {
  switch (layout) {
    case SampleLayout::kLegacy:
      return manifest["upper"]["integrity"];
    case SampleLayout::kInventory:
      return manifest["state"]["upper"]["integrity"];
    case SampleLayout::kLayered:
      break;
  }
  return manifest["state"]["layers"][0]["payload"]["integrity"];
}

std::vector<std::string> AlgorithmsOf(SampleLayout layout) {
  std::vector<std::string> algorithms = {"sha256", "msb-sparse-sha256-v1"};
  if (layout != SampleLayout::kLegacy) algorithms.push_back("msb-file-merkle-blake3-v1");
  return algorithms;
}

TEST_F(HostileManifestTest, IntegrityOfAnotherContent) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const std::string& algorithm : AlgorithmsOf(layout)) {
      for (const bool sparse : {false, true}) {
        SCOPED_TRACE(algorithm + (sparse ? " sparse" : " dense"));
        // The content of one sample, and everything else of the other.
        SampleArchive archive =
            MakeSampleArchive(layout, {.seed = 1, .sparse = sparse, .algorithm = algorithm});
        const SampleArchive other =
            MakeSampleArchive(layout, {.seed = 2, .sparse = sparse, .algorithm = algorithm});
        const std::string content = archive.entries.back().content;
        archive.entries.back().content = other.entries.back().content;
        ExpectRefused(archive.Tar());
        // One bit of the content flipped.
        for (const std::size_t at : {std::size_t{0}, content.size() / 2, content.size() - 1}) {
          archive.entries.back().content = content;
          archive.entries.back().content[at] = static_cast<char>(content[at] ^ 1);
          ExpectRefused(archive.Tar());
        }
      }
    }
  }
}

// Data at another offset in the file than it was.
TEST_F(HostileManifestTest, IntegrityOfAnotherMap) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const std::string& algorithm : AlgorithmsOf(layout)) {
      SampleArchive archive = MakeSampleArchive(layout, {.algorithm = algorithm});
      SCOPED_TRACE(archive.entries[0].name + " " + algorithm);
      archive.entries.back().ranges[1].offset += 512;
      ExpectRefused(archive.Tar());
    }
  }
}

TEST_F(HostileManifestTest, MalformedIntegrity) {
  const std::string hex(64, 'a');
  const std::vector<Json> lies = {
      {{"algorithm", "sha512"}, {"digest", "sha512:" + hex + hex}},
      {{"algorithm", "sha512"}, {"digest", "sha256:" + hex}},
      {{"algorithm", ""}, {"digest", "sha256:" + hex}},
      {{"algorithm", "blake3"}, {"digest", "blake3:" + hex}},
      {{"algorithm", "SHA256"}, {"digest", "sha256:" + hex}},
      {{"algorithm", "sha256"}, {"digest", hex}},
      {{"algorithm", "sha256"}, {"digest", "sha256:" + hex.substr(1)}},
      {{"algorithm", "sha256"}, {"digest", nullptr}},
      {{"algorithm", "sha256"}},
      {{"algorithm", "msb-file-merkle-blake3-v1"}, {"digest", "blake3:" + hex}},
      {{"algorithm", "msb-file-merkle-blake3-v2"},
       {"root", "blake3:" + hex},
       {"logical_size", 147456},
       {"leaf_size", 65536}},
      {{"algorithm", "msb-file-merkle-blake3-v1"},
       {"root", "blake3:" + hex},
       {"logical_size", 147456},
       {"leaf_size", 4096}},
      {{"algorithm", "msb-file-merkle-blake3-v1"},
       {"root", "blake3:" + hex},
       {"logical_size", 147455},
       {"leaf_size", 65536}},
      "sha256:" + hex,
      Json::array()};
  for (const SampleLayout layout : kSampleLayouts) {
    for (const Json& lie : lies) {
      SCOPED_TRACE(lie.dump());
      const auto edit = [&](Json& manifest) { IntegrityIn(layout, manifest) = lie; };
      // An unknown algorithm may also be reported as unsupported.
      ExpectRefused(MakeSampleArchive(layout, {.edit = edit}).Tar(),
                    {ErrorKind::kSnapshotIntegrity, ErrorKind::kUnsupportedOperation});
    }
  }
}

TEST_F(HostileManifestTest, SizesOtherThanThePayloads) {
  const std::uint64_t size = MakeSampleSnapshot(SampleLayout::kLegacy).upper.size();
  for (const SampleLayout layout : kSampleLayouts) {
    for (const bool sparse : {false, true}) {
      for (const std::uint64_t lie : {std::uint64_t{0}, size - 1, size + 1, size - 512, size + 512,
                                      size * 2, std::uint64_t{1} << 30}) {
        SCOPED_TRACE(lie);
        const auto edit = [&](Json& manifest) {
          if (layout == SampleLayout::kLegacy) manifest["upper"]["size_bytes"] = lie;
          if (layout == SampleLayout::kInventory) manifest["state"]["upper"]["size_bytes"] = lie;
          if (layout == SampleLayout::kLayered) {
            manifest["state"]["virtual_size"] = lie;
            manifest["state"]["layers"][0]["virtual_size"] = lie;
          }
        };
        ExpectRefused(
            MakeSampleArchive(layout, {.sparse = sparse, .algorithm = "", .edit = edit}).Tar());
      }
    }
  }
}

TEST_F(HostileManifestTest, FilesElsewhere) {
  for (const std::string file : {"../x", "/etc/passwd", "..", ".", "", "a/b", "snapshot.json",
                                 "manifest.json", "upper.ext4/"}) {
    SCOPED_TRACE(file);
    for (const SampleLayout layout : {SampleLayout::kLegacy, SampleLayout::kInventory}) {
      const auto edit = [&](Json& manifest) {
        Json& root = layout == SampleLayout::kLegacy ? manifest : manifest["state"];
        root["upper"]["file"] = file;
      };
      SampleArchive archive = MakeSampleArchive(layout, {.edit = edit});
      ExpectRefused(archive.Tar());
      std::string& name = archive.entries.back().name;
      name = name.substr(0, name.rfind('/') + 1) + file;
      ExpectRefused(archive.Tar());
    }
    const auto edit = [&](Json& manifest) {
      manifest["state"]["head"] = file;
      manifest["state"]["layers"][0]["layer_id"] = file;
    };
    SampleArchive archive = MakeSampleArchive(SampleLayout::kLayered, {.edit = edit});
    ExpectRefused(archive.Tar());
    archive.entries.back().name = "layers/" + file + ".raw";
    ExpectRefused(archive.Tar());
  }
}

TEST_F(HostileManifestTest, ThoseThatAreMalformed) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::string sound = MakeSampleSnapshot(layout).manifest;
    for (const std::string& manifest :
         {std::string(), std::string("{}"), std::string("null"), std::string("[]"), sound + "x",
          sound.substr(0, sound.size() - 1), "{\"schema\":1," + sound.substr(1),
          std::string("\xff"), std::string(100'000, '['), sound + std::string(1, '\0')}) {
      SCOPED_TRACE(manifest.substr(0, 80));
      // Stored under its own digest, so that the content is the reason of the refusal.
      SampleSnapshot snapshot = MakeSampleSnapshot(layout);
      snapshot.manifest = manifest;
      snapshot.digest = base::Sha256Digest(manifest);
      if (layout != SampleLayout::kLayered) snapshot.id = snapshot.digest;
      ExpectRefused(MakeSampleArchive({snapshot}).Tar());
    }
  }
}

// Each key removed, and each changed to another type, under the digest that results.
TEST_F(HostileManifestTest, AnyFieldMissingOrOfAnotherType) {
  for (const SampleLayout layout : {SampleLayout::kLegacy, SampleLayout::kInventory}) {
    const Json sound = Json::parse(MakeSampleSnapshot(layout).manifest);
    for (const auto& [key, value] : sound.items()) {
      SCOPED_TRACE(key);
      const auto erase = [&key = key](Json& manifest) { manifest.erase(key); };
      const auto change = [&key = key](Json& manifest) { manifest[key] = true; };
      for (const std::function<void(Json&)>& edit :
           {std::function<void(Json&)>(erase), std::function<void(Json&)>(change)}) {
        Json manifest = sound;
        edit(manifest);
        SampleSnapshot snapshot = MakeSampleSnapshot(layout);
        snapshot.manifest = manifest.dump();
        snapshot.id = snapshot.digest = base::Sha256Digest(snapshot.manifest);
        ExpectRefused(MakeSampleArchive({snapshot}).Tar());
      }
    }
  }
}

// A checkpoint is a running machine, which this library cannot hold.
TEST_F(HostileManifestTest, Checkpoints) {
  const auto edit = [](Json& manifest) {
    manifest["scope"] = "resumable";
    manifest["state"] = {{"kind", "checkpoint"},
                         {"checkpoint_id", "c"},
                         {"manifest", "sha256:" + std::string(64, 'a')}};
  };
  SampleSnapshot snapshot = MakeSampleSnapshot(SampleLayout::kInventory, {.edit = edit});
  SampleArchive archive = MakeSampleArchive({snapshot});
  archive.entries.pop_back();
  ExpectRefused(archive.Tar(), {ErrorKind::kSnapshotIntegrity, ErrorKind::kUnsupportedOperation});
}

TEST_F(HostileManifestTest, LabelsThatAreMalformed) {
  SampleArchive archive = MakeSampleArchive(SampleLayout::kLayered);
  for (const std::string metadata :
       {"", "{}", "null", "x", R"({"schema":"microsandbox.snapshot-metadata/1"})",
        R"({"schema":"microsandbox.snapshot-metadata/1","labels":{"a":1}})",
        R"({"schema":"microsandbox.snapshot-metadata/1","labels":[]})",
        R"({"schema":"microsandbox.snapshot-metadata/1","labels":{"a":"1","a":"2"}})",
        R"({"schema":"microsandbox.snapshot-metadata/2","labels":{}})"}) {
    SCOPED_TRACE(metadata);
    archive.Entry("/metadata.json").content = metadata;
    ExpectRefused(archive.Tar());
  }
}

}  // namespace
}  // namespace msb::test
