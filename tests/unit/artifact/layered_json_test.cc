// SPDX-License-Identifier: Apache-2.0
//
// snapshot.json of release 0.7 groups, and the files beside it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/artifact/manifest.h"
#include "src/base/digest.h"
#include "src/base/fields.h"
#include "tests/support/support.h"
#include "tests/unit/artifact/json_document.h"

namespace msb::artifact {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Pointer = json::json_pointer;

class LayeredJsonTest : public testing::Test {
 protected:
  // Written by release 0.7.2; tests/fixtures/README.md has its digest.
  static constexpr std::string_view kLabelled =
      R"({"capture":{"consistency":"crash-consistent","created_at":)"
      R"("2026-11-23T12:59:30.251042852Z","source_checkpoint":null,"source_lineage":"baseline"},)"
      R"("extensions":{},"image":{"manifest_digest":)"
      R"("sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac","reference":)"
      R"("fixture:1"},"parent":"snap_e38b7af9964bdf5ba2de63f9db86d0a8","requires":[],"root_disk":)"
      R"({"layout":"managed"},"schema":"microsandbox.snapshot/1","scope":"file","snapshot_id":)"
      R"("snap_d6985e229700c6f3a1bb5d54773a53e0","state":{"disk_format":"raw","filesystem":"ext4",)"
      R"("head":"layer_4eb2a01245617f6da3fd71dbe36f08be","kind":"file","layers":[{"backing":null,)"
      R"("format":"raw","layer_id":"layer_4eb2a01245617f6da3fd71dbe36f08be","payload":{"file_kind":)"
      R"("regular","integrity":{"algorithm":"msb-file-merkle-blake3-v1","leaf_size":65536,)"
      R"("logical_size":16777216,"root":)"
      R"("blake3:f7e0d8f21477e5147305333e9bf7343ae63bd27d908ed0a85ccf16f249e99397"}},)"
      R"("virtual_size":16777216}],"virtual_size":16777216}})";
  static constexpr std::string_view kLabelledDigest =
      "sha256:2fcbe97d5ff704408781c12cdb45f4a37178323f94074e27898effe46255070c";

  static Manifest Parse(std::string_view text) { return ParseSnapshotJson(text, "snapshot.json"); }

  static json LayerOf(const std::string& id, const json& backing, const std::string& format) {
    return {{"backing", backing},
            {"format", format},
            {"layer_id", id},
            {"payload", {{"file_kind", "regular"}, {"integrity", nullptr}}},
            {"virtual_size", 16777216}};
  }

  // Returns a document with these layers; head is the id of the top one.
  static std::string WithLayers(const std::string& head, const std::string& format,
                                const std::vector<json>& layers) {
    json document = json::parse(kLabelled);
    document["state"]["head"] = head;
    document["state"]["disk_format"] = format;
    document["state"]["layers"] = layers;
    return document.dump();
  }

  const JsonDocument document_{kLabelled, "snapshot.json", ParseSnapshotJson};
};

TEST_F(LayeredJsonTest, ReadsTheManifestOfARelease) {
  const Manifest manifest = ParseSnapshotJson(kLabelled, "snapshot.json");
  EXPECT_EQ(manifest.form, ManifestForm::kLayered);
  EXPECT_EQ(manifest.digest, kLabelledDigest);
  EXPECT_EQ(manifest.snapshot_id, "snap_d6985e229700c6f3a1bb5d54773a53e0");
  EXPECT_EQ(manifest.parent, "snap_e38b7af9964bdf5ba2de63f9db86d0a8");
  EXPECT_EQ(manifest.created_at, "2026-11-23T12:59:30.251042852Z");
  EXPECT_EQ(base::FormatIndexTime(manifest.created), "2026-11-23 12:59:30.251042852");
  EXPECT_EQ(manifest.image.ref, "fixture:1");
  EXPECT_EQ(manifest.image.manifest_digest,
            "sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac");
  EXPECT_EQ(manifest.source_sandbox, "baseline");
  EXPECT_EQ(manifest.scope, "disk");
  EXPECT_EQ(manifest.state_kind, "file");
  EXPECT_EQ(manifest.fstype, "ext4");
  EXPECT_EQ(manifest.size_bytes, 16777216U);
  ASSERT_EQ(manifest.layers.size(), 1U);
  EXPECT_EQ(manifest.layers[0].file, "layers/layer_4eb2a01245617f6da3fd71dbe36f08be.raw");
  EXPECT_EQ(manifest.layers[0].file_bytes, 16777216U);
  EXPECT_EQ(manifest.layers[0].integrity,
            (Integrity{"msb-file-merkle-blake3-v1",
                       "blake3:f7e0d8f21477e5147305333e9bf7343ae63bd27d908ed0a85ccf16f249e99397"}));
}

TEST_F(LayeredJsonTest, HasTheHashOfItsVeryBytesAsIdentity) {
  const std::string pretty = json::parse(kLabelled).dump(2) + "\n";
  const Manifest manifest = ParseSnapshotJson(pretty, "snapshot.json");
  EXPECT_EQ(manifest.digest, base::Sha256Digest(pretty));
  EXPECT_NE(manifest.digest, kLabelledDigest);
}

TEST_F(LayeredJsonTest, ToleratesFieldsOfLaterReleases) {
  for (const char* pointer :
       {"/later", "/capture/later", "/image/later", "/root_disk/later", "/state/later",
        "/state/layers/0/later", "/state/layers/0/payload/later"}) {
    EXPECT_EQ(Parse(document_.With(pointer, {{"x", 1}})).size_bytes, 16777216U) << pointer;
  }
}

TEST_F(LayeredJsonTest, PutsTheLayersInOrderFromTheHeadDown) {
  const std::string document =
      WithLayers("top", "qcow2",
                 {LayerOf("middle", "base", "qcow2"), LayerOf("base", nullptr, "raw"),
                  LayerOf("top", "middle", "qcow2")});
  const Manifest manifest = Parse(document);
  ASSERT_EQ(manifest.layers.size(), 3U);
  EXPECT_EQ(manifest.layers[0].file, "layers/top.qcow2");
  EXPECT_EQ(manifest.layers[0].format, DiskFormat::kQcow2);
  EXPECT_EQ(manifest.layers[1].file, "layers/middle.qcow2");
  EXPECT_EQ(manifest.layers[2].file, "layers/base.raw");
  EXPECT_EQ(manifest.layers[2].format, DiskFormat::kRaw);
  // The virtual size does not determine the length of a qcow2 file.
  EXPECT_EQ(manifest.layers[0].file_bytes, std::nullopt);
  EXPECT_EQ(manifest.layers[2].file_bytes, 16777216U);
}

TEST_F(LayeredJsonTest, TakesTheLengthOfAQcow2FileFromItsIntegrity) {
  json document = json::parse(WithLayers("top", "qcow2", {LayerOf("top", nullptr, "qcow2")}));
  document["state"]["layers"][0]["payload"]["integrity"] = {
      {"algorithm", "msb-file-merkle-blake3-v1"},
      {"leaf_size", 65536},
      {"logical_size", 196608},
      {"root", "blake3:" + std::string(64, '0')}};
  EXPECT_EQ(Parse(document.dump()).layers.at(0).file_bytes, 196608U);
}

TEST_F(LayeredJsonTest, RefusesLayersThatAreNoChain) {
  EXPECT_THAT(document_.RefusalOf(WithLayers("gone", "raw", {LayerOf("a", nullptr, "raw")})),
              HasSubstr("missing"));
  EXPECT_THAT(document_.RefusalOf(WithLayers("a", "raw", {LayerOf("a", "gone", "raw")})),
              HasSubstr("missing"));
  EXPECT_THAT(document_.RefusalOf(WithLayers("a", "raw", {LayerOf("a", "a", "raw")})),
              HasSubstr("loop"));
  EXPECT_THAT(document_.RefusalOf(
                  WithLayers("a", "raw", {LayerOf("a", "b", "raw"), LayerOf("b", "a", "raw")})),
              HasSubstr("loop"));
  EXPECT_THAT(document_.RefusalOf(WithLayers(
                  "a", "raw", {LayerOf("a", nullptr, "raw"), LayerOf("b", nullptr, "raw")})),
              HasSubstr("the layer 'b', which does not back the head"));
  EXPECT_THAT(document_.RefusalOf(WithLayers(
                  "a", "raw", {LayerOf("a", nullptr, "raw"), LayerOf("a", nullptr, "raw")})),
              HasSubstr("twice"));
  EXPECT_THAT(document_.RefusalOf(WithLayers("a", "raw", {})), HasSubstr("missing"));
}

// Each layer of an open snapshot takes a descriptor.
TEST_F(LayeredJsonTest, RefusesADiskOfTooManyLayers) {
  std::vector<json> layers;
  for (std::size_t i = 0; i < kMaxLayers; ++i) {
    layers.push_back(LayerOf("l" + std::to_string(i),
                             i == 0 ? json() : json("l" + std::to_string(i - 1)), "qcow2"));
  }
  const std::string top = "l" + std::to_string(kMaxLayers - 1);
  EXPECT_EQ(Parse(WithLayers(top, "qcow2", layers)).layers.size(), kMaxLayers);
  layers.push_back(LayerOf("new", top, "qcow2"));
  EXPECT_MSB_ERROR(Parse(WithLayers("new", "qcow2", layers)), ErrorKind::kUnsupportedOperation,
                   "snapshot.json lists 257 disk layers, but at most 256 are supported",
                   "only the runtime that wrote the snapshot can use it");
}

TEST_F(LayeredJsonTest, RefusesAnIdThatCouldLeadElsewhere) {
  for (const std::string& id :
       {std::string("a/b"), std::string("../../x"), std::string(".."), std::string("."),
        std::string(""), std::string("a b"), std::string("a\0b", 3), std::string("\u00e9"),
        std::string(129, 'a')}) {
    EXPECT_THAT(document_.RefusalOf(WithLayers(id, "raw", {LayerOf(id, nullptr, "raw")})),
                HasSubstr("state"));
    EXPECT_THAT(document_.RefusalOf(WithLayers(
                    "a", "raw", {LayerOf("a", id, "raw"), LayerOf("b", nullptr, "raw")})),
                HasSubstr("backing"));
    EXPECT_THAT(document_.RefusalOf(document_.With("/snapshot_id", id)), HasSubstr("snapshot_id"));
    EXPECT_THAT(document_.RefusalOf(document_.With("/parent", id)), HasSubstr("parent"));
  }
}

TEST_F(LayeredJsonTest, RefusesAStateThatContradictsItsHead) {
  EXPECT_THAT(document_.RefusalOf(document_.With("/state/disk_format", "qcow2")),
              HasSubstr("head"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/state/virtual_size", 4096)), HasSubstr("head"));
}

TEST_F(LayeredJsonTest, RefusesADocumentWithoutOneOfItsFields) {
  for (const std::string field : {"/capture",
                                  "/capture/created_at",
                                  "/capture/source_lineage",
                                  "/image",
                                  "/image/reference",
                                  "/image/manifest_digest",
                                  "/parent",
                                  "/requires",
                                  "/schema",
                                  "/scope",
                                  "/snapshot_id",
                                  "/state",
                                  "/state/kind",
                                  "/state/disk_format",
                                  "/state/filesystem",
                                  "/state/head",
                                  "/state/layers",
                                  "/state/virtual_size",
                                  "/state/layers/0/backing",
                                  "/state/layers/0/format",
                                  "/state/layers/0/layer_id",
                                  "/state/layers/0/payload",
                                  "/state/layers/0/virtual_size",
                                  "/state/layers/0/payload/file_kind",
                                  "/state/layers/0/payload/integrity",
                                  "/state/layers/0/payload/integrity/root"}) {
    EXPECT_THAT(document_.RefusalOf(document_.Without(field)),
                HasSubstr(Pointer(field).back() + " is missing"));
  }
}

TEST_F(LayeredJsonTest, RefusesAFieldOfAnotherType) {
  for (const char* field :
       {"/capture", "/capture/created_at", "/image", "/image/reference", "/image/manifest_digest",
        "/requires", "/schema", "/scope", "/snapshot_id", "/state", "/state/kind",
        "/state/filesystem", "/state/head", "/state/layers", "/state/virtual_size",
        "/state/layers/0", "/state/layers/0/payload", "/state/layers/0/payload/file_kind",
        "/state/layers/0/payload/integrity/logical_size"}) {
    for (const json& value : {json(), json(true), json(1.5), json(-1), json::object()}) {
      document_.RefusalOf(document_.With(field, value));
    }
  }
  EXPECT_THAT(document_.RefusalOf(document_.With("/requires", json::array({1}))),
              HasSubstr("requires"));
}

TEST_F(LayeredJsonTest, RefusesValuesThatItCannotUse) {
  const std::string layer = "/state/layers/0";
  EXPECT_THAT(document_.RefusalOf(document_.With("/schema", "microsandbox.snapshot/2")),
              HasSubstr("schema"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/capture/created_at", "2026-11-23")),
              HasSubstr("created_at"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/image/manifest_digest", "sha256:ABC")),
              HasSubstr("manifest_digest"));
  EXPECT_THAT(document_.RefusalOf(document_.With(layer + "/format", "vmdk")), HasSubstr("format"));
  EXPECT_THAT(document_.RefusalOf(document_.With(layer + "/payload/file_kind", "symlink")),
              HasSubstr("file_kind"));
  EXPECT_THAT(document_.RefusalOf(document_.With(layer + "/payload/integrity/logical_size", 4096)),
              HasSubstr("logical_size"));
  EXPECT_THAT(document_.RefusalOf(document_.With(layer + "/payload/integrity/algorithm", "md5")),
              HasSubstr("algorithm"));
  EXPECT_THAT(
      document_.RefusalOf(document_.With(layer + "/virtual_size", base::kMaxJsonInteger + 1)),
      HasSubstr("virtual_size"));
}

TEST_F(LayeredJsonTest, RefusesDamagedText) {
  for (std::size_t length = 0; length < kLabelled.size(); ++length) {
    document_.RefusalOf(kLabelled.substr(0, length));
  }
  EXPECT_THAT(
      document_.RefusalOf(document_.Replaced(R"("layout")", R"("layout":"managed","layout")")),
      HasSubstr("dupl"));
}

TEST_F(LayeredJsonTest, ListsACheckpointWithoutLayers) {
  json document = json::parse(document_.With("/scope", "resumable"));
  document["state"] = {{"kind", "checkpoint"}, {"anything", 1}};
  document["parent"] = nullptr;
  document["capture"]["source_lineage"] = nullptr;
  document["requires"] = json::array({"memory"});
  const Manifest manifest = Parse(document.dump());
  EXPECT_EQ(manifest.state_kind, "checkpoint");
  EXPECT_EQ(manifest.scope, "resumable");
  EXPECT_TRUE(manifest.layers.empty());
  EXPECT_EQ(manifest.parent, std::nullopt);
  EXPECT_EQ(manifest.source_sandbox, std::nullopt);
  EXPECT_EQ(manifest.required, (std::vector<std::string>{"memory"}));
}

TEST_F(LayeredJsonTest, ReadsTheFilesBesideIt) {
  EXPECT_EQ(ParseLayeredMetadata(
                R"({"schema":"microsandbox.snapshot-metadata/1","labels":{"a":"b"},"x":1})", ""),
            (std::map<std::string, std::string>{{"a", "b"}}));
  EXPECT_EQ(
      ParseGroupMember(R"({"schema":"microsandbox.snapshot-group-member/1","name":"plain"})", ""),
      "plain");
  EXPECT_EQ(ParseGroupHead(R"({"schema":"microsandbox.snapshot-group/1","head":"snap_1"})", ""),
            "snap_1");
}

TEST_F(LayeredJsonTest, RefusesMalformedFilesBesideIt) {
  for (const std::string_view text :
       {"", "[]", "{}", R"({"schema":"microsandbox.snapshot-metadata/1"})",
        R"({"schema":"microsandbox.snapshot-metadata/1","labels":null})",
        R"({"schema":"microsandbox.snapshot-metadata/1","labels":{"a":1}})",
        R"({"schema":"microsandbox.snapshot-metadata/2","labels":{}})"}) {
    EXPECT_MSB_ERROR(ParseLayeredMetadata(text, "metadata.json"), ErrorKind::kSnapshotIntegrity,
                     "malformed manifest metadata.json: ");
  }
  for (const std::string_view text :
       {"", "{}", R"({"schema":"microsandbox.snapshot-group-member/1","name":""})",
        R"({"schema":"microsandbox.snapshot-group-member/1","name":1})",
        R"({"schema":"microsandbox.snapshot-group/1","name":"plain"})"}) {
    EXPECT_MSB_ERROR(ParseGroupMember(text, "group-member.json"), ErrorKind::kSnapshotIntegrity,
                     "malformed manifest group-member.json: ");
  }
  for (const std::string_view text :
       {"", "{}", R"({"schema":"microsandbox.snapshot-group/1","head":null})",
        R"({"schema":1,"head":"snap_1"})"}) {
    EXPECT_MSB_ERROR(ParseGroupHead(text, "group.json"), ErrorKind::kSnapshotIntegrity,
                     "malformed manifest group.json: ");
  }
}

}  // namespace
}  // namespace msb::artifact
