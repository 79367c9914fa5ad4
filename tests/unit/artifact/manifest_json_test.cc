// SPDX-License-Identifier: Apache-2.0
//
// manifest.json of releases 0.5.5 to 0.6.6.

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

class ManifestJsonTest : public testing::Test {
 protected:
  // Written by release 0.6.6; tests/fixtures/README.md has their digests.
  static constexpr std::string_view kPlain =
      R"({"schema":1,"format":"raw","fstype":"ext4","image":{"ref":"fixture:1","manifest_digest":)"
      R"("sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac"},"parent":null,)"
      R"("created_at":"2026-11-23T12:58:59.427654752+00:00","labels":{},"upper":{"file":)"
      R"("upper.ext4","size_bytes":16777216,"integrity":null},"source_sandbox":"baseline"})";
  static constexpr std::string_view kPlainDigest =
      "sha256:bd0521212377f19a10021e5210b07bee1e6840c38a7abf6ae068d02442d142d4";
  static constexpr std::string_view kLabelled =
      R"({"schema":1,"format":"raw","fstype":"ext4","image":{"ref":"fixture:1","manifest_digest":)"
      R"("sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac"},"parent":null,)"
      R"("created_at":"2026-11-23T12:58:59.450707970+00:00","labels":{"owner":"fixture","stage":)"
      R"("post-deps"},"upper":{"file":"upper.ext4","size_bytes":16777216,"integrity":{"algorithm":)"
      R"("msb-sparse-sha256-v1","digest":)"
      R"("sha256:917062a46c3df41088df6127163ac59ce9ebcf1981da05b6101e03e120df14b5"}},)"
      R"("source_sandbox":"baseline"})";
  static constexpr std::string_view kLabelledDigest =
      "sha256:075646cf621e028fcdf207bd25a0dbcaf9987fe98b2461c4fdac886cd80626d8";

  static Manifest Parse(std::string_view text) {
    return ParseManifest(ManifestForm::kManifest, text, "manifest.json");
  }

  const JsonDocument document_{kLabelled, "manifest.json",
                               [](std::string_view text, const std::string& file) {
                                 ParseManifest(ManifestForm::kManifest, text, file);
                               }};
};

TEST_F(ManifestJsonTest, GivesBackTheVeryBytesThatAReleaseWrote) {
  for (const auto& [text, digest] :
       {std::pair(kPlain, kPlainDigest), std::pair(kLabelled, kLabelledDigest)}) {
    Manifest manifest = Parse(text);
    EXPECT_EQ(manifest.digest, digest);
    EXPECT_EQ(EncodeManifest(manifest), text);
    EXPECT_EQ(manifest.digest, digest);
  }
}

TEST_F(ManifestJsonTest, ReadsEachField) {
  const Manifest manifest = Parse(kLabelled);
  EXPECT_EQ(manifest.form, ManifestForm::kManifest);
  EXPECT_EQ(manifest.created_at, "2026-11-23T12:58:59.450707970+00:00");
  EXPECT_EQ(base::FormatIndexTime(manifest.created), "2026-11-23 12:58:59.450707970");
  EXPECT_EQ(manifest.parent, std::nullopt);
  EXPECT_EQ(manifest.image.ref, "fixture:1");
  EXPECT_EQ(manifest.image.manifest_digest,
            "sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac");
  EXPECT_EQ(manifest.source_sandbox, "baseline");
  EXPECT_EQ(manifest.labels,
            (std::map<std::string, std::string>{{"owner", "fixture"}, {"stage", "post-deps"}}));
  EXPECT_EQ(manifest.fstype, "ext4");
  EXPECT_EQ(manifest.size_bytes, 16777216U);
  ASSERT_EQ(manifest.layers.size(), 1U);
  EXPECT_EQ(manifest.layers[0].file, "upper.ext4");
  EXPECT_EQ(manifest.layers[0].format, DiskFormat::kRaw);
  EXPECT_EQ(manifest.layers[0].file_bytes, 16777216U);
  EXPECT_EQ(manifest.layers[0].integrity,
            (Integrity{"msb-sparse-sha256-v1",
                       "sha256:917062a46c3df41088df6127163ac59ce9ebcf1981da05b6101e03e120df14b5"}));
}

TEST_F(ManifestJsonTest, HasTheSameIdentityHoweverItIsLaidOut) {
  EXPECT_EQ(Parse(json::parse(kLabelled).dump(4)).digest, kLabelledDigest);
  EXPECT_EQ(Parse(std::string(kLabelled) + " \t\r\n").digest, kLabelledDigest);
  EXPECT_EQ(Parse(document_.Replaced("fixture:1", R"(fi\u0078ture:1)")).digest, kLabelledDigest);
}

TEST_F(ManifestJsonTest, KeepsTheTimeAsItWasWritten) {
  Manifest manifest = Parse(document_.With("/created_at", "2026-11-23T14:58:59.50+02:00"));
  EXPECT_THAT(EncodeManifest(manifest),
              HasSubstr(R"("created_at":"2026-11-23T14:58:59.50+02:00")"));
  EXPECT_EQ(base::FormatIndexTime(manifest.created), "2026-11-23 12:58:59.500000000");
}

TEST_F(ManifestJsonTest, SortsLabelsByTheirBytesAndEscapesOnlyRequiredCharacters) {
  Manifest manifest = Parse(document_.With("/labels", {{"b", "\"\\/"},
                                                       {"a", "\b\t\n\f\r\x01\x1f\x7f"},
                                                       {"Z", "\u2028\u00e9"},
                                                       {"\u00e9", ""},
                                                       {"", "empty key"}}));
  EXPECT_THAT(EncodeManifest(manifest),
              HasSubstr("\"labels\":{\"\":\"empty key\",\"Z\":\"\u2028\u00e9\","
                        "\"a\":\"\\b\\t\\n\\f\\r\\u0001\\u001f\x7f\",\"b\":\"\\\"\\\\/\","
                        "\"\u00e9\":\"\"}"));
}

TEST_F(ManifestJsonTest, TakesAQcow2UpperAndAParent) {
  json document = json::parse(kPlain);
  document["format"] = "qcow2";
  document["parent"] = "sha512:Anything";
  document["source_sandbox"] = nullptr;
  Manifest manifest = Parse(document.dump());
  EXPECT_EQ(manifest.layers.at(0).format, DiskFormat::kQcow2);
  EXPECT_EQ(manifest.parent, "sha512:Anything");
  EXPECT_EQ(manifest.source_sandbox, std::nullopt);
  const std::string bytes = EncodeManifest(manifest);
  EXPECT_THAT(bytes, HasSubstr(R"("format":"qcow2","fstype":"ext4")"));
  EXPECT_THAT(bytes, HasSubstr(R"("parent":"sha512:Anything","created_at")"));
  EXPECT_TRUE(bytes.ends_with(R"(,"source_sandbox":null})"));
}

TEST_F(ManifestJsonTest, RefusesADocumentWithoutOneOfItsFields) {
  for (const std::string field :
       {"/schema", "/format", "/fstype", "/image", "/image/ref", "/image/manifest_digest",
        "/parent", "/created_at", "/labels", "/upper", "/upper/file", "/upper/size_bytes",
        "/upper/integrity", "/upper/integrity/algorithm", "/upper/integrity/digest",
        "/source_sandbox"}) {
    EXPECT_THAT(document_.RefusalOf(document_.Without(field)),
                HasSubstr(JsonDocument::Spelled(field) + " is missing"));
  }
}

TEST_F(ManifestJsonTest, RefusesAFieldThatItDoesNotKnow) {
  for (const std::string field :
       {"/extra", "/image/extra", "/upper/extra", "/upper/integrity/extra"}) {
    EXPECT_THAT(document_.RefusalOf(document_.With(field, nullptr)),
                HasSubstr(JsonDocument::Spelled(field)));
  }
}

TEST_F(ManifestJsonTest, RefusesAFieldOfAnotherType) {
  const std::vector<json> values = {nullptr, true, 7, 1.5, "?", json::array(), json::object()};
  const std::map<std::string, std::vector<std::string>> right = {
      {"/schema", {}},
      {"/format", {}},
      {"/fstype", {"string"}},
      {"/image", {}},
      {"/image/ref", {"string"}},
      {"/image/manifest_digest", {}},
      {"/parent", {"null"}},
      {"/created_at", {}},
      {"/labels", {"object"}},
      {"/labels/owner", {"string"}},
      {"/upper", {}},
      {"/upper/file", {"string"}},
      {"/upper/integrity", {"null"}},
      {"/upper/integrity/algorithm", {"string"}},
      {"/upper/integrity/digest", {}},
      {"/source_sandbox", {"null", "string"}}};
  for (const auto& [field, types] : right) {
    for (const json& value : values) {
      if (std::find(types.begin(), types.end(), value.type_name()) != types.end()) {
        EXPECT_NO_THROW(Parse(document_.With(field, value))) << field << " " << value;
      } else {
        const bool in_map = field == "/labels/owner";
        EXPECT_THAT(document_.RefusalOf(document_.With(field, value)),
                    HasSubstr(in_map ? "labels" : JsonDocument::Spelled(field)));
      }
    }
  }
}

TEST_F(ManifestJsonTest, RefusesADocumentThatIsNoObject) {
  for (const std::string_view text : {"", " ", "null", "1", "\"x\"", "[]", "[{}]"})
    document_.RefusalOf(text);
}

TEST_F(ManifestJsonTest, RefusesAnotherSchema) {
  for (const std::string_view schema : {"2", "0", "-1", "1.0", "1e0", "\"1\"", "true", "null"}) {
    EXPECT_THAT(document_.RefusalOf(
                    document_.Replaced(R"("schema":1)", R"("schema":)" + std::string(schema))),
                HasSubstr("schema"));
  }
}

TEST_F(ManifestJsonTest, RefusesAnotherFormat) {
  for (const char* format : {"", "RAW", "vmdk"}) {
    EXPECT_THAT(document_.RefusalOf(document_.With("/format", format)), HasSubstr("format"));
  }
}

TEST_F(ManifestJsonTest, RefusesEmptyTexts) {
  for (const std::string field : {"/fstype", "/image/ref", "/image/manifest_digest", "/upper/file",
                                  "/created_at", "/parent", "/upper/integrity/algorithm"}) {
    EXPECT_THAT(document_.RefusalOf(document_.With(field, "")),
                HasSubstr(JsonDocument::Spelled(field)));
  }
}

TEST_F(ManifestJsonTest, RefusesADigestThatIsNotAlgorithmAndValue) {
  for (const std::string field : {"/parent", "/image/manifest_digest", "/upper/integrity/digest"}) {
    for (const char* digest : {"0123456789abcdef", ":abc", "sha256:", ":"}) {
      EXPECT_THAT(document_.RefusalOf(document_.With(field, digest)),
                  HasSubstr(JsonDocument::Spelled(field)));
    }
  }
}

TEST_F(ManifestJsonTest, RefusesAnUpperThatIsNotOnePlainFileName) {
  for (const std::string& file :
       {std::string("a/b"), std::string("/etc/passwd"), std::string("../upper.ext4"),
        std::string(".."), std::string("."), std::string("upper.ext4/"), std::string("a\0b", 3),
        std::string(256, 'u')}) {
    EXPECT_THAT(document_.RefusalOf(document_.With("/upper/file", file)), HasSubstr("upper.file"));
  }
}

TEST_F(ManifestJsonTest, RefusesAReservedNameForTheUpper) {
  for (const char* file :
       {"manifest.json", "snapshot.json", ".manifest.json.legacy", ".snapshot-migration.lock"}) {
    EXPECT_THAT(document_.RefusalOf(document_.With("/upper/file", file)), HasSubstr("upper.file"));
  }
}

TEST_F(ManifestJsonTest, RefusesAnInvalidSize) {
  for (const std::string_view size :
       {"9007199254740992", "18446744073709551615", "18446744073709551616", "-1", "-0", "1.0",
        "16777216.5", "1e3", "\"16777216\"", "null"}) {
    EXPECT_THAT(document_.RefusalOf(document_.Replaced("16777216", size)),
                HasSubstr("upper.size_bytes"));
  }
  EXPECT_EQ(Parse(document_.Replaced("16777216", "9007199254740991")).size_bytes,
            base::kMaxJsonInteger);
  EXPECT_EQ(Parse(document_.Replaced("16777216", "0")).size_bytes, 0U);
}

TEST_F(ManifestJsonTest, RefusesATimeThatIsNotRfc3339) {
  for (const char* time :
       {"yesterday", "2026-11-23", "2026-11-23T12:58:59", "2026-13-23T12:58:59Z",
        "2026-02-30T12:58:59Z", "2026-11-23T24:00:00Z", "2026-11-23T12:60:00Z",
        "2026-11-23T12:58:61Z", "2026-11-23T12:58:59.Z", "2026-11-23T12:58:59Zjunk",
        "2026-11-23T12:58:59+2:00", "26-11-23T12:58:59Z", " 2026-11-23T12:58:59Z"}) {
    EXPECT_THAT(document_.RefusalOf(document_.With("/created_at", time)), HasSubstr("created_at"))
        << time;
  }
}

TEST_F(ManifestJsonTest, RefusesAKeyThatAnObjectHasTwice) {
  const std::vector<std::pair<std::string_view, std::string_view>> twice = {
      {R"("schema":1)", R"("schema":1,"schema":1)"},
      {R"("schema":1)", R"("schema":1,"sch\u0065ma":1)"},
      {R"("ref":"fixture:1")", R"("ref":"fixture:1","ref":"fixture:1")"},
      {R"("owner":"fixture")", R"("owner":"fixture","owner":"other")"},
      {R"("file":"upper.ext4")", R"("file":"upper.ext4","file":"upper.ext4")"},
      {R"("algorithm":)", R"("algorithm":"sha256","algorithm":)"}};
  for (const auto& [from, to] : twice)
    EXPECT_THAT(document_.RefusalOf(document_.Replaced(from, to)), HasSubstr("dupl"));
}

TEST_F(ManifestJsonTest, RefusesADocumentNestedTooDeeply) {
  for (const std::size_t depth : {128U, 1'000U, 1'000'000U}) {
    EXPECT_THAT(document_.RefusalOf(std::string(depth, '[')), HasSubstr("deep"));
    const std::string nested = std::string(depth, '[') + std::string(depth, ']');
    EXPECT_THAT(document_.RefusalOf(document_.Replaced(R"("post-deps")", nested)),
                HasSubstr("deep"));
  }
}

TEST_F(ManifestJsonTest, RefusesInvalidUtf8) {
  for (const std::string_view text : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "caf\xe9", "\xe2\x82", R"(\ud800)", R"(\udc00\ud800)"}) {
    document_.RefusalOf(document_.Replaced("post-deps", text));
  }
  document_.RefusalOf("\xef\xbb\xbf" + std::string(kLabelled));
}

TEST_F(ManifestJsonTest, RefusesAlmostValidJson) {
  document_.RefusalOf(std::string(kLabelled) + "x");
  document_.RefusalOf(std::string(kLabelled) + std::string(1, '\0'));
  document_.RefusalOf(std::string(kLabelled) + std::string(kLabelled));
  document_.RefusalOf(document_.Replaced(R"("labels":{)", R"("labels":{,)"));
  document_.RefusalOf(document_.Replaced(R"("post-deps"})", R"("post-deps",})"));
  document_.RefusalOf(document_.Replaced("16777216", "016777216"));
  document_.RefusalOf(document_.Replaced("16777216", "NaN"));
  document_.RefusalOf(document_.Replaced("post-deps", "post\ndeps"));
  document_.RefusalOf("/* a comment */" + std::string(kLabelled));
}

TEST_F(ManifestJsonTest, RefusesADocumentThatEndsTooEarlyWhereverThatIs) {
  for (std::size_t length = 0; length < kLabelled.size(); ++length) {
    document_.RefusalOf(kLabelled.substr(0, length));
  }
}

}  // namespace
}  // namespace msb::artifact
