// SPDX-License-Identifier: Apache-2.0
//
// Refusing malformed snapshot.json files of releases 0.6.7 to 0.6.18.

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

class DescriptorJsonRefusalTest : public testing::Test {
 protected:
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
      R"("post-deps"},"extensions":{"a":[{"x":1}],"b":2},"requires":["a"]})";
  static constexpr std::string_view kSomeDigest =
      "sha256:917062a46c3df41088df6127163ac59ce9ebcf1981da05b6101e03e120df14b5";

  static json Checkpoint() {
    json document = json::parse(kLabelled);
    document["state"] = {
        {"kind", "checkpoint"}, {"checkpoint_id", "cp"}, {"manifest", kSomeDigest}};
    return document;
  }

  const JsonDocument document_{kLabelled, "snapshot.json", ParseSnapshotJson};
};

TEST_F(DescriptorJsonRefusalTest, TakesTheDocumentThatTheOthersAreMadeFrom) {
  EXPECT_NO_THROW(ParseSnapshotJson(kLabelled, "snapshot.json"));
  EXPECT_NO_THROW(ParseSnapshotJson(Checkpoint().dump(), "snapshot.json"));
}

TEST_F(DescriptorJsonRefusalTest, RefusesADocumentWithoutOneOfItsFields) {
  for (const std::string field : {"/schema",
                                  "/artifact",
                                  "/scope",
                                  "/created_at",
                                  "/parent",
                                  "/image",
                                  "/image/ref",
                                  "/image/manifest_digest",
                                  "/source_sandbox",
                                  "/state",
                                  "/state/kind",
                                  "/state/format",
                                  "/state/fstype",
                                  "/state/upper",
                                  "/state/upper/file",
                                  "/state/upper/size_bytes",
                                  "/state/upper/integrity",
                                  "/state/upper/integrity/algorithm",
                                  "/state/upper/integrity/root",
                                  "/state/upper/integrity/logical_size",
                                  "/state/upper/integrity/leaf_size",
                                  "/labels",
                                  "/extensions",
                                  "/requires"}) {
    EXPECT_THAT(document_.RefusalOf(document_.Without(field)),
                HasSubstr(JsonDocument::Spelled(field) + " is missing"));
  }
  for (const char* field : {"checkpoint_id", "manifest"}) {
    json document = Checkpoint();
    document["state"].erase(field);
    EXPECT_THAT(document_.RefusalOf(document.dump()), HasSubstr(field));
  }
}

TEST_F(DescriptorJsonRefusalTest, RefusesAFieldThatItDoesNotKnow) {
  for (const std::string field :
       {"/extra", "/image/extra", "/state/extra", "/state/upper/extra",
        "/state/upper/integrity/extra", "/state/upper/integrity/digest", "/state/checkpoint_id"}) {
    EXPECT_THAT(document_.RefusalOf(document_.With(field, "x")),
                HasSubstr(JsonDocument::Spelled(field)));
  }
  json document = Checkpoint();
  document["state"]["upper"] = nullptr;
  EXPECT_THAT(document_.RefusalOf(document.dump()), HasSubstr("state.upper"));
}

TEST_F(DescriptorJsonRefusalTest, RefusesAFieldOfAnotherType) {
  const std::vector<json> values = {nullptr, true, 7, 1.5, "?", json::array(), json::object()};
  const std::map<std::string, std::vector<std::string>> right = {
      {"/schema", {}},
      {"/artifact", {}},
      {"/scope", {}},
      {"/created_at", {}},
      {"/parent", {"null"}},
      {"/image", {}},
      {"/image/ref", {"string"}},
      {"/image/manifest_digest", {}},
      {"/source_sandbox", {"null", "string"}},
      {"/state", {}},
      {"/state/kind", {}},
      {"/state/format", {}},
      {"/state/fstype", {"string"}},
      {"/state/upper", {}},
      {"/state/upper/file", {"string"}},
      {"/state/upper/size_bytes", {}},
      {"/state/upper/integrity", {"null"}},
      {"/state/upper/integrity/algorithm", {}},
      {"/state/upper/integrity/root", {}},
      {"/state/upper/integrity/logical_size", {}},
      {"/state/upper/integrity/leaf_size", {}},
      {"/labels", {"object"}},
      {"/extensions", {}},
      {"/requires", {"array"}}};
  for (const auto& [field, types] : right) {
    for (const json& value : values) {
      if (std::find(types.begin(), types.end(), value.type_name()) != types.end()) {
        EXPECT_NO_THROW(ParseSnapshotJson(document_.With(field, value), ""))
            << field << " " << value;
      } else {
        document_.RefusalOf(document_.With(field, value));
      }
    }
  }
  for (const json& value : values) {
    if (value.is_string()) continue;
    EXPECT_THAT(document_.RefusalOf(document_.With("/labels/owner", value)), HasSubstr("labels"));
  }
}

TEST_F(DescriptorJsonRefusalTest, RefusesAnotherSchemaArtifactScopeOrState) {
  for (const std::string_view schema : {"2", "0", "-1", "1.0", "1e0", "true", "null"}) {
    EXPECT_THAT(document_.RefusalOf(
                    document_.Replaced(R"("schema":1)", R"("schema":)" + std::string(schema))),
                HasSubstr("schema"));
  }
  document_.RefusalOf(document_.With("/schema", "1"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/artifact", "snapshot-archive")),
              HasSubstr("artifact"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/scope", "file")), HasSubstr("scope"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/scope", "")), HasSubstr("scope"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/scope", "resumable")), HasSubstr("scope"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/state/kind", "checkpoint")), HasSubstr("state"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/state/kind", "memory")),
              HasSubstr("state.kind"));
  EXPECT_THAT(document_.RefusalOf(document_.With("/state/format", "vmdk")),
              HasSubstr("state.format"));
}

TEST_F(DescriptorJsonRefusalTest, RefusesEmptyTexts) {
  for (const std::string field :
       {"/image/ref", "/state/fstype", "/state/upper/file", "/created_at"}) {
    EXPECT_THAT(document_.RefusalOf(document_.With(field, "")),
                HasSubstr(JsonDocument::Spelled(field)));
  }
  json document = Checkpoint();
  document["state"]["checkpoint_id"] = "";
  EXPECT_THAT(document_.RefusalOf(document.dump()), HasSubstr("state.checkpoint_id"));
}

TEST_F(DescriptorJsonRefusalTest, RefusesADigestThatIsNotStrict) {
  const std::string hex(64, 'a');
  const std::vector<std::string> bad = {"",
                                        "abc",
                                        hex,
                                        "sha512:" + hex,
                                        "SHA256:" + hex,
                                        "sha256:" + std::string(64, 'A'),
                                        "sha256:" + hex.substr(1),
                                        "sha256:" + hex + "a",
                                        "sha256:" + hex.substr(1) + "g",
                                        "blake3:" + hex,
                                        " sha256:" + hex};
  for (const std::string& digest : bad) {
    EXPECT_THAT(document_.RefusalOf(document_.With("/parent", digest)), HasSubstr("parent"));
    EXPECT_THAT(document_.RefusalOf(document_.With("/image/manifest_digest", digest)),
                HasSubstr("image.manifest_digest"));
    const json plain = {{"algorithm", "sha256"}, {"digest", digest}};
    EXPECT_THAT(document_.RefusalOf(document_.With("/state/upper/integrity", plain)),
                HasSubstr("integrity.digest"));
    json document = Checkpoint();
    document["state"]["manifest"] = digest;
    EXPECT_THAT(document_.RefusalOf(document.dump()), HasSubstr("state.manifest"));
    if (digest == "blake3:" + hex) continue;
    EXPECT_THAT(document_.RefusalOf(document_.With("/state/upper/integrity/root", digest)),
                HasSubstr("integrity.root"));
  }
  EXPECT_THAT(document_.RefusalOf(document_.With("/state/upper/integrity/root", "sha256:" + hex)),
              HasSubstr("root"));
}

TEST_F(DescriptorJsonRefusalTest, RefusesAnIntegrityThatDoesNotFitTheUpper) {
  const std::string integrity = "/state/upper/integrity";
  EXPECT_THAT(document_.RefusalOf(document_.With(integrity + "/logical_size", 16777215)),
              HasSubstr("logical_size"));
  EXPECT_THAT(document_.RefusalOf(document_.With(integrity + "/leaf_size", 4096)),
              HasSubstr("leaf_size"));
  EXPECT_THAT(document_.RefusalOf(document_.Replaced("65536", "65536.0")), HasSubstr("leaf_size"));
  EXPECT_THAT(document_.RefusalOf(document_.With(integrity + "/algorithm", "md5")),
              HasSubstr("integrity.algorithm"));
  EXPECT_THAT(document_.RefusalOf(
                  document_.With(integrity, {{"algorithm", "md5"}, {"digest", kSomeDigest}})),
              HasSubstr("md5"));
}

TEST_F(DescriptorJsonRefusalTest, RefusesAnUpperThatIsNotOnePlainFileName) {
  for (const std::string& file :
       {std::string("a/b"), std::string("/etc/passwd"), std::string("../upper.ext4"),
        std::string(".."), std::string("."), std::string("a\0b", 3), std::string(256, 'u'),
        std::string("snapshot.json"), std::string("manifest.json"),
        std::string(".manifest.json.legacy"), std::string(".snapshot-migration.lock")}) {
    EXPECT_THAT(document_.RefusalOf(document_.With("/state/upper/file", file)),
                HasSubstr("state.upper.file"));
  }
}

TEST_F(DescriptorJsonRefusalTest, RefusesAnInvalidSize) {
  for (const std::string_view size :
       {"9007199254740992", "18446744073709551616", "-1", "-0", "16777216.0", "1e3", "\"1\""}) {
    EXPECT_THAT(document_.RefusalOf(document_.Replaced("16777216", size)),
                HasSubstr("state.upper.size_bytes"));
  }
}

TEST_F(DescriptorJsonRefusalTest, RefusesATimeThatIsNotRfc3339) {
  for (const char* time :
       {"2026-11-23", "2026-11-23T12:58:59", "2026-02-30T12:58:59Z", "2026-11-23T24:00:00Z",
        "2026-11-23T12:58:61Z", "2026-11-23T12:58:59Zjunk", "2026-11-23T12:58:59+24:00",
        "10000-01-01T00:00:00Z", "9999-12-31T23:30:00-01:00", "2026/11/23T12:58:59Z"}) {
    EXPECT_THAT(document_.RefusalOf(document_.With("/created_at", time)), HasSubstr("created_at"))
        << time;
  }
}

TEST_F(DescriptorJsonRefusalTest, RefusesRequirementsThatAreNotInOrder) {
  for (const std::vector<json>& required : std::vector<std::vector<json>>{
           {"b", "a"}, {"a", "a"}, {"a", "c"}, {"x"}, {1}, {nullptr}, {json::array()}}) {
    EXPECT_THAT(document_.RefusalOf(document_.With("/requires", required)), HasSubstr("requires"));
  }
  EXPECT_THAT(document_.RefusalOf(document_.With("/requires", json::object({{"a", true}}))),
              HasSubstr("requires"));
}

TEST_F(DescriptorJsonRefusalTest, RefusesAKeyThatAnObjectHasTwice) {
  const std::vector<std::pair<std::string_view, std::string_view>> twice = {
      {R"("schema":1)", R"("schema":1,"schema":1)"},
      {R"("ref":"fixture:1")", R"("ref":"fixture:1","ref":"fixture:1")"},
      {R"("kind":"file")", R"("kind":"file","k\u0069nd":"file")"},
      {R"("file":"upper.ext4")", R"("file":"upper.ext4","file":"upper.ext4")"},
      {R"("leaf_size":65536)", R"("leaf_size":65536,"leaf_size":65536)"},
      {R"("owner":"fixture")", R"("owner":"fixture","owner":"fixture")"},
      {R"("b":2)", R"("b":2,"b":2)"},
      {R"({"x":1})", R"({"x":1,"x":1})"}};
  for (const auto& [from, to] : twice)
    EXPECT_THAT(document_.RefusalOf(document_.Replaced(from, to)), HasSubstr("dupl"));
}

TEST_F(DescriptorJsonRefusalTest, RefusesADocumentNestedTooDeeply) {
  for (const std::size_t depth : {128U, 1'000U, 1'000'000U}) {
    const std::string nested = std::string(depth, '[') + std::string(depth, ']');
    EXPECT_THAT(document_.RefusalOf(nested), HasSubstr("deep"));
    EXPECT_THAT(document_.RefusalOf(document_.Replaced(R"("b":2)", R"("b":)" + nested)),
                HasSubstr("deep"));
  }
}

TEST_F(DescriptorJsonRefusalTest, RefusesInvalidUtf8) {
  for (const std::string_view text :
       {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "caf\xe9", R"(\ud800)"}) {
    document_.RefusalOf(document_.Replaced("post-deps", text));
  }
  document_.RefusalOf("\xef\xbb\xbf" + std::string(kLabelled));
}

TEST_F(DescriptorJsonRefusalTest, RefusesADocumentThatEndsTooEarlyWhereverThatIs) {
  for (std::size_t length = 0; length < kLabelled.size(); ++length) {
    document_.RefusalOf(kLabelled.substr(0, length));
  }
}

TEST_F(DescriptorJsonRefusalTest, RefusesADocumentThatGoesOn) {
  document_.RefusalOf(std::string(kLabelled) + "x");
  document_.RefusalOf(std::string(kLabelled) + std::string(1, '\0'));
  document_.RefusalOf(std::string(kLabelled) + std::string(kLabelled));
}

TEST_F(DescriptorJsonRefusalTest, RefusesADocumentThatIsNoObject) {
  for (const std::string_view text : {"", "null", "1", "\"x\"", "[]", "{}"})
    document_.RefusalOf(text);
}

}  // namespace
}  // namespace msb::artifact
