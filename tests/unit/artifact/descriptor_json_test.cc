// SPDX-License-Identifier: Apache-2.0
//
// Reading and writing snapshot.json of releases 0.6.7 to 0.6.18.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/artifact/manifest.h"
#include "tests/support/support.h"
#include "tests/unit/artifact/json_document.h"

namespace msb::artifact {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class DescriptorJsonTest : public testing::Test {
 protected:
  // Written by release 0.6.18; tests/fixtures/README.md has their digests.
  static constexpr std::string_view kPlain =
      R"({"schema":1,"artifact":"snapshot","scope":"disk","created_at":)"
      R"("2026-11-23T12:59:23.010523011Z","parent":null,"image":{"ref":"fixture:1",)"
      R"("manifest_digest":)"
      R"("sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac"},)"
      R"("source_sandbox":"baseline","state":{"kind":"file","format":"raw","fstype":"ext4",)"
      R"("upper":{"file":"upper.ext4","size_bytes":16777216,"integrity":null}},"labels":{},)"
      R"("extensions":{},"requires":[]})";
  static constexpr std::string_view kPlainDigest =
      "sha256:aa185ae31d5b60f19ce72be2190975e0c4c676e1e13c644d4fc9ec828a40bd81";
  static constexpr std::string_view kLabelled =
      R"({"schema":1,"artifact":"snapshot","scope":"disk","created_at":)"
      R"("2026-11-23T12:59:23.02858503Z","parent":null,"image":{"ref":"fixture:1",)"
      R"("manifest_digest":)"
      R"("sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac"},)"
      R"("source_sandbox":"baseline","state":{"kind":"file","format":"raw","fstype":"ext4",)"
      R"("upper":{"file":"upper.ext4","size_bytes":16777216,"integrity":{"algorithm":)"
      R"("msb-file-merkle-blake3-v1","root":)"
      R"("blake3:f7e0d8f21477e5147305333e9bf7343ae63bd27d908ed0a85ccf16f249e99397",)"
      R"("logical_size":16777216,"leaf_size":65536}}},"labels":{"owner":"fixture","stage":)"
      R"("post-deps"},"extensions":{},"requires":[]})";
  static constexpr std::string_view kLabelledDigest =
      "sha256:182ae3892aaf75922cd7718458517ba700a0eeb34a06fdb6a33846393de42580";
  static constexpr std::string_view kSomeDigest =
      "sha256:917062a46c3df41088df6127163ac59ce9ebcf1981da05b6101e03e120df14b5";

  // Returns the canonical bytes of a document in which one field has another value.
  std::string Sealed(const std::string& pointer, const json& value) const {
    Manifest manifest = ParseSnapshotJson(document_.With(pointer, value), "snapshot.json");
    return EncodeManifest(manifest);
  }

  // Returns created_at as the canonical form has it.
  std::string Normalised(const std::string& time) const {
    return ParseSnapshotJson(document_.With("/created_at", time), "snapshot.json").created_at;
  }

  const JsonDocument document_{kLabelled, "snapshot.json", ParseSnapshotJson};
};

TEST_F(DescriptorJsonTest, GivesBackTheVeryBytesThatAReleaseWrote) {
  for (const auto& [text, digest] :
       {std::pair(kPlain, kPlainDigest), std::pair(kLabelled, kLabelledDigest)}) {
    Manifest manifest = ParseManifest(ManifestForm::kDescriptor, text, "snapshot.json");
    EXPECT_EQ(manifest.digest, digest);
    EXPECT_EQ(EncodeManifest(manifest), text);
    EXPECT_EQ(manifest.digest, digest);
  }
}

TEST_F(DescriptorJsonTest, ReadsEachField) {
  const Manifest manifest = ParseSnapshotJson(kLabelled, "snapshot.json");
  EXPECT_EQ(manifest.form, ManifestForm::kDescriptor);
  EXPECT_EQ(base::FormatIndexTime(manifest.created), "2026-11-23 12:59:23.028585030");
  EXPECT_EQ(manifest.parent, std::nullopt);
  EXPECT_EQ(manifest.image.ref, "fixture:1");
  EXPECT_EQ(manifest.image.manifest_digest,
            "sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac");
  EXPECT_EQ(manifest.source_sandbox, "baseline");
  EXPECT_EQ(manifest.labels.at("stage"), "post-deps");
  EXPECT_EQ(manifest.scope, "disk");
  EXPECT_EQ(manifest.state_kind, "file");
  EXPECT_EQ(manifest.fstype, "ext4");
  EXPECT_EQ(manifest.size_bytes, 16777216U);
  ASSERT_EQ(manifest.layers.size(), 1U);
  EXPECT_EQ(manifest.layers[0].file, "upper.ext4");
  EXPECT_EQ(manifest.layers[0].file_bytes, 16777216U);
  EXPECT_EQ(manifest.layers[0].integrity,
            (Integrity{"msb-file-merkle-blake3-v1",
                       "blake3:f7e0d8f21477e5147305333e9bf7343ae63bd27d908ed0a85ccf16f249e99397"}));
}

TEST_F(DescriptorJsonTest, HasTheSameIdentityHoweverItIsLaidOut) {
  EXPECT_EQ(ParseSnapshotJson(json::parse(kLabelled).dump(2), "").digest, kLabelledDigest);
  EXPECT_EQ(ParseSnapshotJson(std::string(kLabelled) + "\n \t\r\n", "").digest, kLabelledDigest);
  EXPECT_EQ(
      ParseSnapshotJson(document_.With("/created_at", "2026-11-23T12:59:23.028585030Z"), "").digest,
      kLabelledDigest);
}

// The releases accept all of these, and write the same canonical form.
TEST_F(DescriptorJsonTest, WritesEveryFormOfATimeInUtc) {
  EXPECT_EQ(Normalised("2026-11-23T14:59:10.50+02:00"), "2026-11-23T12:59:10.5Z");
  EXPECT_EQ(Normalised("2026-11-23 12:59:10Z"), "2026-11-23T12:59:10Z");
  EXPECT_EQ(Normalised("2026-11-23t12:59:10z"), "2026-11-23T12:59:10Z");
  EXPECT_EQ(Normalised("2026-11-23T12:59:10.000+00:00"), "2026-11-23T12:59:10Z");
  EXPECT_EQ(Normalised("2026-11-23T12:59:10.123456789012Z"), "2026-11-23T12:59:10.123456789Z");
  EXPECT_EQ(Normalised("2016-12-31T23:59:60Z"), "2016-12-31T23:59:60Z");
  EXPECT_EQ(Normalised("2016-12-31T23:59:60.25Z"), "2016-12-31T23:59:60.25Z");
  EXPECT_EQ(Normalised("2026-01-01T00:30:00+01:00"), "2025-12-31T23:30:00Z");
  EXPECT_EQ(Normalised("2024-02-28T23:30:00-01:00"), "2024-02-29T00:30:00Z");
}

TEST_F(DescriptorJsonTest, SortsTheKeysOfExtensionsAtEveryDepth) {
  const std::string bytes =
      Sealed("/extensions", json::parse(R"({"z":null,"a":{"d":[{"y":1.50,"x":-2}],"c":1e2},
          "B":[true,"\u00e9\/\u001f"],"f":0.1,"n":18446744073709551615})"));
  EXPECT_THAT(bytes, HasSubstr("\"extensions\":{\"B\":[true,\"\u00e9/\\u001f\"],"
                               "\"a\":{\"c\":100.0,\"d\":[{\"x\":-2,\"y\":1.5}]},\"f\":0.1,"
                               "\"n\":18446744073709551615,\"z\":null},\"requires\":[]"));
  const Manifest again = ParseSnapshotJson(bytes, "snapshot.json");
  EXPECT_EQ(again.extensions,
            bytes.substr(bytes.find("{\"B\""), bytes.find(",\"requires\"") - bytes.find("{\"B\"")));
}

TEST_F(DescriptorJsonTest, ReadsTheRequirementsOfASnapshot) {
  json document = json::parse(kPlain);
  document["extensions"] = {{"b", 1}, {"a", nullptr}, {"c", json::object()}};
  document["requires"] = {"a", "c"};
  Manifest manifest = ParseSnapshotJson(document.dump(), "snapshot.json");
  EXPECT_EQ(manifest.required, (std::vector<std::string>{"a", "c"}));
  EXPECT_TRUE(EncodeManifest(manifest).ends_with(R"("extensions":{"a":null,"b":1,"c":{}},)"
                                                 R"("requires":["a","c"]})"));
}

TEST_F(DescriptorJsonTest, TakesACheckpointOfEitherScope) {
  for (const char* scope : {"disk", "resumable"}) {
    json document = json::parse(kPlain);
    document["scope"] = scope;
    document["state"] = {
        {"kind", "checkpoint"}, {"checkpoint_id", "cp 1"}, {"manifest", kSomeDigest}};
    Manifest manifest = ParseSnapshotJson(document.dump(), "snapshot.json");
    EXPECT_EQ(manifest.scope, scope);
    EXPECT_EQ(manifest.state_kind, "checkpoint");
    EXPECT_EQ(manifest.checkpoint_id, "cp 1");
    EXPECT_EQ(manifest.checkpoint_manifest, kSomeDigest);
    EXPECT_TRUE(manifest.layers.empty());
    EXPECT_EQ(manifest.size_bytes, 0U);
    const std::string bytes = EncodeManifest(manifest);
    EXPECT_THAT(bytes, HasSubstr(R"("scope":")" + std::string(scope) + R"(","created_at")"));
    EXPECT_THAT(bytes, HasSubstr(R"("state":{"kind":"checkpoint","checkpoint_id":"cp 1",)"
                                 R"("manifest":")" +
                                 std::string(kSomeDigest) + R"("},"labels")"));
  }
}

TEST_F(DescriptorJsonTest, TakesAQcow2UpperOfAnyFileSystem) {
  json document = json::parse(kPlain);
  document["state"]["format"] = "qcow2";
  document["state"]["fstype"] = "btrfs";
  document["state"]["upper"]["file"] = "upper.qcow2";
  Manifest manifest = ParseSnapshotJson(document.dump(), "snapshot.json");
  EXPECT_EQ(manifest.layers.at(0).format, DiskFormat::kQcow2);
  EXPECT_THAT(EncodeManifest(manifest),
              HasSubstr(R"({"kind":"file","format":"qcow2","fstype":"btrfs","upper":{"file":)"
                        R"("upper.qcow2","size_bytes":16777216,"integrity":null}})"));
}

TEST_F(DescriptorJsonTest, TakesEachPlainHashAsIntegrity) {
  for (const std::string algorithm : {"sha256", "msb-sparse-sha256-v1"}) {
    const json integrity = {{"algorithm", algorithm}, {"digest", kSomeDigest}};
    EXPECT_THAT(Sealed("/state/upper/integrity", integrity),
                HasSubstr(R"("integrity":{"algorithm":")" + algorithm + R"(","digest":")" +
                          std::string(kSomeDigest) + R"("}})"));
  }
}

TEST_F(DescriptorJsonTest, EscapesOnlyRequiredCharacters) {
  const std::string bytes = Sealed("/labels", {{"b", "\"\\/"},
                                               {"a", "\b\t\n\f\r\x01\x1f\x7f"},
                                               {"Z", "\u2028\u00e9\U0001f600"},
                                               {"", "\x00"}});
  EXPECT_THAT(bytes, HasSubstr("\"labels\":{\"\":\"\",\"Z\":\"\u2028\u00e9\U0001f600\","
                               "\"a\":\"\\b\\t\\n\\f\\r\\u0001\\u001f\x7f\",\"b\":\"\\\"\\\\/\"}"));
  EXPECT_THAT(Sealed("/labels", {{"nul", std::string("a\0b", 3)}}), HasSubstr(R"("a\u0000b")"));
}

TEST_F(DescriptorJsonTest, WritesAParentAndTheLackOfASandbox) {
  EXPECT_THAT(Sealed("/parent", kSomeDigest),
              HasSubstr(R"("parent":")" + std::string(kSomeDigest) + R"(","image")"));
  EXPECT_THAT(Sealed("/source_sandbox", nullptr), HasSubstr(R"("source_sandbox":null,"state")"));
}

}  // namespace
}  // namespace msb::artifact
