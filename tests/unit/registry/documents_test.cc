// SPDX-License-Identifier: Apache-2.0

#include "src/registry/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/base/digest.h"
#include "tests/support/support.h"

namespace msb::registry {
namespace {

BlobDescriptor Blob(const std::string& content) {
  return {base::Sha256Digest(content), content.size()};
}

FileManifest Manifest() {
  return {.content = Content::kSnapshot,
          .table = Blob("table"),
          .manifest = Blob("manifest"),
          .form = artifact::ManifestForm::kDescriptor,
          .chunks = {Blob("one"), Blob("three")},
          .annotations = {{"vnd.msb.snapshot.label.a", "\"b\""}}};
}

RemoteDocument Document(std::string_view media_type, const std::string& text) {
  return {std::string(media_type), base::Sha256Digest(text), text};
}

FileManifest ParseManifest(const std::string& text) {
  return ParseFileManifest(Document(kManifestMediaType, text), "the manifest of x");
}

SnapshotIndex ParseIndex(const std::string& text) {
  return ParseSnapshotIndex(Document(kIndexMediaType, text), "the index of x");
}

std::string Changed(std::string text, const std::string& from, const std::string& to) {
  const std::size_t place = text.find(from);
  EXPECT_NE(place, text.npos) << from;
  return text.replace(place, from.size(), to);
}

TEST(FileManifestTest, IsReadAsItWasWritten) {
  for (const auto form : {artifact::ManifestForm::kManifest, artifact::ManifestForm::kDescriptor}) {
    FileManifest manifest = Manifest();
    manifest.form = form;
    const FileManifest read = ParseManifest(WriteFileManifest(manifest));
    EXPECT_EQ(read.content, Content::kSnapshot);
    EXPECT_EQ(read.form, form);
    EXPECT_EQ(read.table, manifest.table);
    EXPECT_EQ(read.manifest, manifest.manifest);
    EXPECT_EQ(read.chunks, manifest.chunks);
  }
  FileManifest image = Manifest();
  image.content = Content::kImageFile;
  const FileManifest read = ParseManifest(WriteFileManifest(image));
  EXPECT_EQ(read.content, Content::kImageFile);
  EXPECT_EQ(read.chunks, image.chunks);
}

TEST(FileManifestTest, IsAnOciManifest) {
  const auto json = nlohmann::json::parse(WriteFileManifest(Manifest()));
  EXPECT_EQ(json.at("schemaVersion"), 2);
  EXPECT_EQ(json.at("mediaType"), "application/vnd.oci.image.manifest.v1+json");
  EXPECT_EQ(json.at("artifactType"), "application/vnd.msb.snapshot.v1");
  EXPECT_EQ(json.at("config").at("mediaType"), "application/vnd.msb.snapshot.chunks.v1+json");
  EXPECT_EQ(json.at("layers").size(), 3U);
  EXPECT_EQ(json.at("annotations").at("vnd.msb.snapshot.label.a"), "\"b\"");
}

// With the most chunks, the manifest is shorter than registries accept.
TEST(FileManifestTest, IsShortEnoughForRegistries) {
  FileManifest manifest = Manifest();
  manifest.chunks.assign(std::size_t{1} << 14, {base::Sha256Digest("x"), 268435456});
  manifest.annotations = {{"vnd.msb.snapshot.label.a", std::string(64 << 10, '\n')}};
  const std::string text = WriteFileManifest(manifest);
  EXPECT_LT(text.size(), kMaxDocumentBytes);
  EXPECT_EQ(ParseManifest(text).chunks.size(), manifest.chunks.size());
}

TEST(FileManifestTest, IgnoresWhatItDoesNotNeed) {
  const std::string text = WriteFileManifest(Manifest());
  EXPECT_EQ(ParseManifest(Changed(text, "\"schemaVersion\"",
                                  "\"subject\":null,\"other\":[1],\"schemaVersion\""))
                .chunks,
            Manifest().chunks);
}

TEST(FileManifestTest, RefusesWhatIsNotOfASnapshot) {
  const std::string text = WriteFileManifest(Manifest());
  EXPECT_MSB_ERROR(ParseFileManifest(Document("application/json", text), "the manifest of x"),
                   ErrorKind::kUnsupportedOperation, "the manifest of x is not a snapshot",
                   "application/json", "to which a snapshot was pushed");
  EXPECT_MSB_ERROR(
      ParseManifest(Changed(text, "application/vnd.msb.snapshot.v1", "application/vnd.other.v1")),
      ErrorKind::kUnsupportedOperation, "application/vnd.other.v1", "snapshot was pushed");
}

TEST(FileManifestTest, AcceptsEquivalentMediaTypes) {
  const std::string text = WriteFileManifest(Manifest());
  for (const char* type : {"Application/vnd.OCI.image.manifest.v1+JSON", "",
                           "application/vnd.oci.image.manifest.v1+json; charset=utf-8"}) {
    EXPECT_EQ(ParseFileManifest(Document(type, text), "x").table, Manifest().table) << type;
  }
  const std::string other = Changed(text, "vnd.oci.image.manifest", "vnd.oci.image.index");
  EXPECT_MSB_ERROR(ParseFileManifest(Document("", other), "the manifest of x"),
                   ErrorKind::kUnsupportedOperation, "the manifest of x is not a snapshot",
                   "without a media type", "to which a snapshot was pushed");
}

TEST(FileManifestTest, RefusesMalformedDocuments) {
  const std::string text = WriteFileManifest(Manifest());
  const auto expect_refused = [](const std::string& wrong, const std::string& problem) {
    EXPECT_MSB_ERROR(ParseManifest(wrong), ErrorKind::kSnapshotIntegrity,
                     "the manifest of x is malformed", problem, "push the snapshot again");
  };
  expect_refused("", "invalid JSON");
  expect_refused(std::string(10000, '['), "nested deeper");
  expect_refused(Changed(text, "\"schemaVersion\":2", "\"schemaVersion\":1"), "schemaVersion");
  expect_refused(Changed(text, "vnd.oci.image.manifest", "vnd.docker.manifest"), "mediaType");
  expect_refused(Changed(text, "chunks.v1+json", "chunks.v2+json"), "config.mediaType");
  expect_refused(Changed(text, "descriptor.v1+json", "descriptor.v2+json"), "layers[0].mediaType");
  expect_refused(Changed(text, "chunk.v1+zstd", "chunk.v1+gzip"), "layers[1].mediaType");
  expect_refused(Changed(text, "sha256:", "md5:"), "config.digest");
  expect_refused(Changed(text, "\"size\":5", "\"size\":-5"), "config.size");
  expect_refused(Changed(text, "\"size\":5", "\"size\":1e300"), "config.size");
  FileManifest none = Manifest();
  none.content = Content::kImageFile;
  none.chunks.clear();
  expect_refused(WriteFileManifest(none), "layers is empty");
}

TEST(SnapshotIndexTest, IsReadAsItWasWritten) {
  const SnapshotIndex index{.entries = {{Content::kSnapshot, Blob("head")},
                                        {Content::kSnapshot, Blob("parent")},
                                        {Content::kImageFile, Blob("image")}},
                            .annotations = {{"a", "b"}}};
  EXPECT_EQ(ParseIndex(WriteSnapshotIndex(index)).entries, index.entries);
}

// skopeo 1.9 leaves the artifact types out when it copies an index.
TEST(SnapshotIndexTest, MayLackTheArtifactTypes) {
  std::string text = WriteSnapshotIndex(
      {.entries = {{Content::kSnapshot, Blob("head")}, {Content::kImageFile, Blob("image")}},
       .annotations = {{"vnd.msb.snapshot.digest", "sha256:…"}}});
  text = Changed(text, ",\"artifactType\":\"application/vnd.msb.snapshot.v1\",\"m", ",\"m");
  text = Changed(text, ",\"artifactType\":\"application/vnd.msb.snapshot.v1\"}", "}");
  text = Changed(text, ",\"artifactType\":\"application/vnd.msb.image-file.v1\"", "");
  EXPECT_EQ(ParseIndex(text).entries,
            (std::vector<IndexEntry>{{std::nullopt, Blob("head")}, {std::nullopt, Blob("image")}}));
}

TEST(SnapshotIndexTest, RefusesOtherDocuments) {
  const std::string text =
      WriteSnapshotIndex({.entries = {{Content::kSnapshot, Blob("head")}}, .annotations = {}});
  EXPECT_MSB_ERROR(ParseSnapshotIndex(Document(kManifestMediaType, text), "the index of x"),
                   ErrorKind::kUnsupportedOperation, "the index of x is not a snapshot");
  EXPECT_MSB_ERROR(
      ParseIndex(Changed(text, ",\"artifactType\":\"application/vnd.msb.snapshot.v1\"", "")),
      ErrorKind::kUnsupportedOperation, "an image index");
  const auto expect_refused = [](const std::string& wrong, const std::string& problem) {
    EXPECT_MSB_ERROR(ParseIndex(wrong), ErrorKind::kSnapshotIntegrity,
                     "the index of x is malformed", problem, "push the snapshot again");
  };
  expect_refused(Changed(text, "vnd.oci.image.manifest", "vnd.other"), "manifests[0]");
  expect_refused(WriteSnapshotIndex({.entries = {}, .annotations = {}}), "manifests is empty");
  expect_refused(
      WriteSnapshotIndex({.entries = {{Content::kImageFile, Blob("x")}}, .annotations = {}}),
      "manifests[0] must be a snapshot");
  expect_refused(WriteSnapshotIndex({.entries = {{Content::kSnapshot, Blob("head")},
                                                 {Content::kImageFile, Blob("image")},
                                                 {Content::kSnapshot, Blob("parent")}},
                                     .annotations = {}}),
                 "manifests[2]");
}

}  // namespace
}  // namespace msb::registry
