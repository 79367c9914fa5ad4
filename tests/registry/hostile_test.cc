// SPDX-License-Identifier: Apache-2.0
//
// Pulls from a registry that sends something other than what was pushed. Nothing may be published,
// and nothing may be left.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "src/base/digest.h"
#include "src/registry/chunk_table.h"
#include "src/registry/documents.h"
#include "tests/support/scripted_registry.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kRepository = "team/clean";
constexpr std::uint64_t kChunk = 8 << 20;

std::string Compressed(const std::string& content) {
  std::string blob(ZSTD_compressBound(content.size()), '\0');
  blob.resize(ZSTD_compress(blob.data(), blob.size(), content.data(), content.size(), 3));
  return blob;
}

// A registry to which a snapshot was pushed whose disk has three chunks, of which the second is a
// hole.
class HostileRegistryTest : public ::testing::Test {
 protected:
  HostileRegistryTest() {
    const std::string data = Noise(64 << 10, 1);
    MakeSparseFile(dir_ / "disk", 2 * kChunk + (128 << 10),
                   {{0, data}, {2 * kChunk, Noise(64 << 10, 2)}});
    Client sender = LocalClient(dir_ / "sender");
    MakeStoppedSandbox(sender, "base", dir_ / "disk");
    digest_ = Snapshot::Create(ctx_, "base", {.name = "clean", .record_integrity = true}, sender)
                  .Digest();
    Snapshot::Push(ctx_, "clean", Reference(), {}, sender);
    Load();
  }

  std::string Reference() const { return registry_.host() + "/" + kRepository; }

  Json Document(const std::string& target) const {
    return Json::parse(*registry_.Manifest(kRepository, target));
  }

  // Gets the documents of what was pushed, to change them.
  void Load() {
    index_ = Document("latest");
    manifest_ = Document(index_["manifests"][0]["digest"]);
    table_ = Json::parse(*registry_.Blob(kRepository, manifest_["config"]["digest"]));
  }

  // Adds a blob, and returns a descriptor with its digest and size.
  Json AddBlob(const std::string& bytes, Json descriptor) {
    descriptor["digest"] = registry_.AddBlob(kRepository, bytes);
    descriptor["size"] = bytes.size();
    return descriptor;
  }

  // Makes the tag name the changed documents, with digests that match.
  void Serve() {
    manifest_["config"] = AddBlob(table_.dump(), manifest_["config"]);
    ServeManifest();
  }
  void ServeManifest() {
    const std::string text = manifest_.dump();
    index_["manifests"][0]["digest"] =
        registry_.AddManifest(kRepository, "", std::string(registry::kManifestMediaType), text);
    index_["manifests"][0]["size"] = text.size();
    ServeIndex();
  }
  void ServeIndex() {
    registry_.AddManifest(kRepository, "latest", std::string(registry::kIndexMediaType),
                          index_.dump());
  }

  // Makes the blob of the n-th chunk these bytes; the documents describe them correctly.
  void ReplaceChunk(std::size_t n, const std::string& blob) {
    const Json described = AddBlob(blob, manifest_["layers"][1 + n]);
    manifest_["layers"][1 + n] = described;
    table_["chunks"][n]["digest"] = described["digest"];
    table_["chunks"][n]["size"] = described["size"];
    Serve();
  }

  SnapshotHandle Pull() {
    return Snapshot::Pull(ctx_, Reference(), "", {.registry = {.retries = 0}}, receiver_);
  }

  void ExpectRefused(ErrorKind kind, const std::string& problem) {
    EXPECT_MSB_ERROR(Pull(), kind, problem);
    ExpectNothing();
  }
  void ExpectRefused(const std::string& problem) {
    ExpectRefused(ErrorKind::kSnapshotIntegrity, problem);
  }

  // Expects no snapshot, no stage, and no row.
  void ExpectNothing() {
    EXPECT_EQ(Snapshot::List(ctx_, receiver_).size(), 0U);
    std::error_code absent;
    for (const auto& entry : fs::directory_iterator(dir_ / "receiver/snapshots", absent)) {
      ADD_FAILURE() << entry.path();
    }
  }

  const Context ctx_ = Soon();
  TempDir dir_;
  ScriptedRegistry registry_;
  Client receiver_ = LocalClient(dir_ / "receiver");
  std::string digest_;
  Json index_, manifest_, table_;
};

TEST_F(HostileRegistryTest, TheUnchangedSnapshotIsPulled) {
  Serve();
  EXPECT_EQ(Pull().Digest(), digest_);
}

// Each answer with the wrong bytes is refused because of its digest.
TEST_F(HostileRegistryTest, ADocumentWithAnotherDigest) {
  const std::string path = fmt::format("/v2/{}/manifests/{}", kRepository,
                                       index_["manifests"][0]["digest"].get<std::string>());
  registry_.Answer("GET", path,
                   {.headers = {{"content-type", std::string(registry::kManifestMediaType)}},
                    .body = manifest_.dump() + " "});
  ExpectRefused(index_["manifests"][0]["digest"]);
}

TEST_F(HostileRegistryTest, ABlobWithAnotherDigest) {
  for (const Json& blob : {manifest_["config"], manifest_["layers"][0], manifest_["layers"][2]}) {
    const std::string digest = blob["digest"];
    std::string bytes = *registry_.Blob(kRepository, digest);
    bytes[bytes.size() / 2] ^= 1;
    registry_.Answer("GET", fmt::format("/v2/{}/blobs/{}", kRepository, digest), {.body = bytes},
                     1);
    ExpectRefused(digest);
  }
}

TEST_F(HostileRegistryTest, ABlobThatIsShorterOrLongerThanItsSize) {
  const std::string digest = manifest_["layers"][1]["digest"];
  const std::string bytes = *registry_.Blob(kRepository, digest);
  for (const std::string& wrong : {bytes.substr(1), bytes + "x", std::string()}) {
    registry_.Answer("GET", fmt::format("/v2/{}/blobs/{}", kRepository, digest), {.body = wrong},
                     1);
    ExpectRefused(digest);
  }
}

TEST_F(HostileRegistryTest, ABlobWithoutEnd) {
  const std::string digest = manifest_["layers"][1]["digest"];
  registry_.Answer("GET", fmt::format("/v2/{}/blobs/{}", kRepository, digest),
                   {.body = std::string(4096, 'x'),
                    .framing = ScriptedAnswer::Framing::kChunked,
                    .endless = true});
  ExpectRefused(digest);
}

TEST_F(HostileRegistryTest, ADecompressionBomb) {
  ReplaceChunk(0, Compressed(std::string(64 << 20, 'x')));
  ExpectRefused("cannot be decompressed to at most 8388608 bytes");
}

// Each table is within its limits, but all of them together would need too much memory.
TEST_F(HostileRegistryTest, ManyImagesWithManyChunks) {
  constexpr std::uint64_t kLeaf = registry::kMinChunkBytes;
  registry::ChunkTable table{.size = registry::kMaxChunks * kLeaf, .chunk_size = kLeaf};
  const registry::BlobDescriptor blob{registry_.AddBlob(kRepository, "x"), 1};
  for (std::uint64_t i = 0; i < registry::kMaxChunks; ++i) table.chunks.push_back({i, {1}, blob});
  table.root = registry::RootOf(table);
  for (int i = 0; i < 5; ++i) {
    table.file = fmt::format("layers/sha256_{:064x}.erofs", i);
    const std::string text = registry::WriteChunkTable(table);
    const std::string manifest =
        registry::WriteFileManifest({.content = registry::Content::kImageFile,
                                     .table = {registry_.AddBlob(kRepository, text), text.size()},
                                     .chunks = {blob}});
    const std::string digest =
        registry_.AddManifest(kRepository, "", std::string(registry::kManifestMediaType), manifest);
    index_["manifests"].push_back({{"mediaType", registry::kManifestMediaType},
                                   {"digest", digest},
                                   {"size", manifest.size()},
                                   {"artifactType", "application/vnd.msb.image-file.v1"}});
  }
  ServeIndex();
  ExpectRefused(ErrorKind::kUnsupportedOperation, "more than 65536 chunks");
}

// The tree of a small file has fewer hashes than a chunk of this size may have.
TEST_F(HostileRegistryTest, AChunkThatIsLongerThanASmallFile) {
  MakeSparseFile(dir_ / "small", 4096, {{0, Noise(4096, 3)}});
  Client sender = LocalClient(dir_ / "small-sender");
  MakeStoppedSandbox(sender, "small", dir_ / "small");
  Snapshot::Create(ctx_, "small", {.name = "small"}, sender);
  Snapshot::Push(ctx_, "small", Reference(), {}, sender);
  Load();
  ReplaceChunk(0, Compressed(std::string(128 << 10, 'x')));
  ExpectRefused("cannot be decompressed to at most 4096 bytes");
}

TEST_F(HostileRegistryTest, ABlobThatIsNotAZstdFrame) {
  for (const std::string& blob :
       {std::string("text"), Compressed("a") + Compressed("b"),
        std::string("\x50\x2a\x4d\x18\x04\0\0\0abcd", 12), std::string("\x28\xb5\x2f\xfd", 4)}) {
    ReplaceChunk(0, blob);
    ExpectRefused("is malformed");
  }
}

TEST_F(HostileRegistryTest, AChunkWithOtherContentThanItsHash) {
  ReplaceChunk(0, Compressed(Noise(64 << 10, 7)));
  ExpectRefused("does not have the content that the chunk table records");
}

TEST_F(HostileRegistryTest, TwoChunksInTheWrongOrder) {
  std::swap(table_["chunks"][0]["digest"], table_["chunks"][1]["digest"]);
  std::swap(table_["chunks"][0]["size"], table_["chunks"][1]["size"]);
  std::swap(manifest_["layers"][1], manifest_["layers"][2]);
  Serve();
  ExpectRefused("does not have the content that the chunk table records");
}

// The hashes of the table are right, so only its order and its ranges are wrong.
TEST_F(HostileRegistryTest, ChunksThatOverlapRepeatOrAreMissing) {
  const Json chunks = table_["chunks"];
  table_["chunks"] = Json::array({chunks[0], chunks[0], chunks[1]});
  Serve();
  ExpectRefused("chunks[1].index is 0, but must be greater than 0");
  table_["chunks"] = Json::array({chunks[1], chunks[0]});
  Serve();
  ExpectRefused("chunks[1].index is 0, but must be greater than 2");
  table_["chunks"] = Json::array({chunks[0]});
  Serve();
  ExpectRefused("chunks have the root");
}

TEST_F(HostileRegistryTest, AnOffsetBeyondTheEndOfTheFile) {
  table_["chunks"][1]["index"] = 3;
  Serve();
  ExpectRefused("chunks[1].index is 3, which is beyond the end of the file");
  table_["chunks"][1]["index"] = 1ULL << 60;
  Serve();
  ExpectRefused("chunks[1].index");
}

TEST_F(HostileRegistryTest, AnotherChunkSize) {
  for (const std::uint64_t size : {0ULL, 1ULL, 4096ULL, 3ULL << 20, 1ULL << 40}) {
    table_["chunk_size"] = size;
    Serve();
    ExpectRefused("chunk_size must be a power of two");
  }
  table_["chunk_size"] = kChunk / 2;
  Serve();
  ExpectRefused("chunks have the root");
}

// The table is right by itself, but not the one of the disk that the manifest records.
TEST_F(HostileRegistryTest, ATableOfAnotherFile) {
  registry::ChunkTable other = registry::ParseChunkTable(table_.dump(), "x");
  other.chunks.pop_back();
  other.root = registry::RootOf(other);
  table_ = Json::parse(registry::WriteChunkTable(other));
  manifest_["layers"].erase(2);
  Serve();
  ExpectRefused("is not that of the disk that the snapshot's manifest records");
}

TEST_F(HostileRegistryTest, ATableWithAnotherFileName) {
  for (const char* name : {"../upper.ext4", "/etc/passwd", "snapshot.json", "x"}) {
    table_["file"] = name;
    Serve();
    ExpectRefused("is not that of the disk that the snapshot's manifest records");
  }
}

TEST_F(HostileRegistryTest, AnAbsurdSizeOfTheFile) {
  table_["size"] = (1ULL << 53) - 1;
  table_["integrity"]["logical_size"] = (1ULL << 53) - 1;
  Serve();
  ExpectRefused("chunks have the root");
}

TEST_F(HostileRegistryTest, AManifestThatListsOtherBlobsThanItsTable) {
  const Json layers = manifest_["layers"];
  manifest_["layers"].erase(2);
  Serve();
  ExpectRefused("does not list the blobs of its chunk table");
  manifest_["layers"] = layers;
  manifest_["layers"].push_back(layers[1]);
  Serve();
  ExpectRefused("does not list the blobs of its chunk table");
}

TEST_F(HostileRegistryTest, AChunkTableOfAGibibyte) {
  manifest_["config"]["size"] = 1 << 30;
  ServeManifest();
  ExpectRefused("has 1073741824 bytes, which is too much");
}

TEST_F(HostileRegistryTest, AManifestOfASnapshotOfAGibibyte) {
  manifest_["layers"][0]["size"] = 1 << 30;
  ServeManifest();
  ExpectRefused("has 1073741824 bytes, which is too much");
}

TEST_F(HostileRegistryTest, AnIndexThatIsTooLong) {
  registry_.AddManifest(kRepository, "latest", std::string(registry::kIndexMediaType),
                        index_.dump() + std::string(5 << 20, ' '));
  ExpectRefused("latest");
}

TEST_F(HostileRegistryTest, DeepJson) {
  for (const char* text : {"{\"a\":", "["}) {
    std::string deep;
    while (deep.size() < 100'000) deep += text;
    registry_.AddManifest(kRepository, "latest", std::string(registry::kIndexMediaType), deep);
    ExpectRefused("nested deeper than 127 levels");
  }
}

TEST_F(HostileRegistryTest, ADuplicateKey) {
  std::string text = index_.dump();
  text.insert(1, "\"schemaVersion\":2,");
  registry_.AddManifest(kRepository, "latest", std::string(registry::kIndexMediaType), text);
  ExpectRefused("schemaVersion");
}

TEST_F(HostileRegistryTest, ADocumentOfAnotherType) {
  registry_.AddManifest(kRepository, "latest",
                        "application/vnd.docker.distribution.manifest.v2+json", index_.dump());
  ExpectRefused(ErrorKind::kUnsupportedOperation, "is not a snapshot");
  index_["artifactType"] = "application/vnd.other.v1";
  ServeIndex();
  ExpectRefused(ErrorKind::kUnsupportedOperation, "application/vnd.other.v1");
}

TEST_F(HostileRegistryTest, AManifestThatIsMissing) {
  index_["manifests"][0]["digest"] = base::Sha256Digest("missing");
  ServeIndex();
  ExpectRefused("does not have the manifest");
}

TEST_F(HostileRegistryTest, AManifestOfAnotherSizeThanTheIndexSays) {
  index_["manifests"][0]["size"] = 1;
  ServeIndex();
  ExpectRefused("is not what its index describes");
}

TEST_F(HostileRegistryTest, ASnapshotThatOccursTwice) {
  index_["manifests"].push_back(index_["manifests"][0]);
  ServeIndex();
  ExpectRefused("occurs twice");
}

TEST_F(HostileRegistryTest, AnImageFileWithAPathThatLeadsOut) {
  for (const char* name : {"../../etc/x", "/etc/x", "disks/../x.raw", "disks/x", "upper.ext4"}) {
    Json table = table_;
    table["file"] = name;
    Json image = manifest_;
    image["artifactType"] = "application/vnd.msb.image-file.v1";
    image["layers"].erase(0);
    image["config"] = AddBlob(table.dump(), image["config"]);
    const std::string text = image.dump();
    Json index = index_;
    Json entry = index["manifests"][0];
    entry["artifactType"] = image["artifactType"];
    entry["digest"] =
        registry_.AddManifest(kRepository, "", std::string(registry::kManifestMediaType), text);
    entry["size"] = text.size();
    index["manifests"].push_back(entry);
    registry_.AddManifest(kRepository, "latest", std::string(registry::kIndexMediaType),
                          index.dump());
    ExpectRefused("is not a file of an image");
  }
  EXPECT_FALSE(fs::exists(dir_ / "receiver/cache/disks"));
}

// Changes a field of the artifact's manifest; everything else describes it correctly.
TEST_F(HostileRegistryTest, AnArtifactManifestWithOtherContent) {
  const std::string original = *registry_.Blob(kRepository, manifest_["layers"][0]["digest"]);
  const auto serve = [&](const std::string& text) {
    manifest_["layers"][0] = AddBlob(text, manifest_["layers"][0]);
    Serve();
  };
  Json changed = Json::parse(original);
  changed["state"]["upper"]["file"] = "../upper.ext4";
  serve(changed.dump());
  ExpectRefused("state.upper.file");
  changed = Json::parse(original);
  changed["state"]["upper"]["size_bytes"] = 1;
  serve(changed.dump());
  ExpectRefused("logical_size");
  changed = Json::parse(original);
  changed["parent"] = "sha256:x";
  serve(changed.dump());
  ExpectRefused("parent");
  serve(original.substr(0, original.size() / 2));
  ExpectRefused("JSON");
  serve(std::string());
  ExpectRefused("JSON");
}

TEST_F(HostileRegistryTest, ParentsThatAreMissingOrFormNoChain) {
  const std::string original = *registry_.Blob(kRepository, manifest_["layers"][0]["digest"]);
  // Another snapshot that the head does not descend from.
  Json other = Json::parse(original);
  other["labels"]["a"] = "b";
  Json second = manifest_;
  second["layers"][0] = AddBlob(other.dump(), second["layers"][0]);
  const std::string text = second.dump();
  Json entry = index_["manifests"][0];
  entry["digest"] =
      registry_.AddManifest(kRepository, "", std::string(registry::kManifestMediaType), text);
  entry["size"] = text.size();
  index_["manifests"].push_back(entry);
  ServeIndex();
  ExpectRefused("must have one head");
  // The head is the parent of the one that follows.
  other["parent"] = digest_;
  second["layers"][0] = AddBlob(other.dump(), second["layers"][0]);
  const std::string child = second.dump();
  entry["digest"] =
      registry_.AddManifest(kRepository, "", std::string(registry::kManifestMediaType), child);
  entry["size"] = child.size();
  index_["manifests"][1] = entry;
  ServeIndex();
  ExpectRefused("descends from it");
}

}  // namespace
}  // namespace msb::test
