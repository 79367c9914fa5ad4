// manifest.json of releases 0.5.5 to 0.6.6.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/artifact/manifest.h"
#include "src/base/digest.h"
#include "src/base/fields.h"
#include "tests/support/support.h"

namespace msb::artifact {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Pointer = json::json_pointer;

// Written by release 0.6.6; tests/fixtures/README.md has their digests.
constexpr std::string_view kPlain =
    R"({"schema":1,"format":"raw","fstype":"ext4","image":{"ref":"fixture:1","manifest_digest":)"
    R"("sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac"},"parent":null,)"
    R"("created_at":"2026-11-23T12:58:59.427654752+00:00","labels":{},"upper":{"file":)"
    R"("upper.ext4","size_bytes":16777216,"integrity":null},"source_sandbox":"baseline"})";
constexpr std::string_view kPlainDigest =
    "sha256:bd0521212377f19a10021e5210b07bee1e6840c38a7abf6ae068d02442d142d4";
constexpr std::string_view kLabelled =
    R"({"schema":1,"format":"raw","fstype":"ext4","image":{"ref":"fixture:1","manifest_digest":)"
    R"("sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac"},"parent":null,)"
    R"("created_at":"2026-11-23T12:58:59.450707970+00:00","labels":{"owner":"fixture","stage":)"
    R"("post-deps"},"upper":{"file":"upper.ext4","size_bytes":16777216,"integrity":{"algorithm":)"
    R"("msb-sparse-sha256-v1","digest":)"
    R"("sha256:917062a46c3df41088df6127163ac59ce9ebcf1981da05b6101e03e120df14b5"}},)"
    R"("source_sandbox":"baseline"})";
constexpr std::string_view kLabelledDigest =
    "sha256:075646cf621e028fcdf207bd25a0dbcaf9987fe98b2461c4fdac886cd80626d8";

Manifest Parse(std::string_view text) {
  return ParseManifest(ManifestForm::kManifest, text, "manifest.json");
}

// Returns the message with which text is refused.
std::string Refusal(std::string_view text) {
  try {
    Parse(text);
  } catch (const Error& e) {
    EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(ErrorKind::kSnapshotIntegrity)) << e.what();
    EXPECT_THAT(e.what(), HasSubstr("manifest.json"));
    return e.what();
  }
  ADD_FAILURE() << "accepted: " << text.substr(0, 2000);
  return {};
}

std::string With(const std::string& pointer, const json& value) {
  json document = json::parse(kLabelled);
  document[Pointer(pointer)] = value;
  return document.dump();
}

std::string Without(const std::string& pointer) {
  json document = json::parse(kLabelled);
  const Pointer field(pointer);
  document.at(field.parent_pointer()).erase(field.back());
  return document.dump();
}

std::string Replaced(std::string_view from, std::string_view to) {
  std::string text(kLabelled);
  const std::size_t at = text.find(from);
  if (at == std::string::npos) throw std::logic_error("nothing to replace");
  return text.replace(at, from.size(), to);
}

// Converts "/upper/file" to the spelling in messages, "upper.file".
std::string Spelled(std::string pointer) {
  pointer.erase(0, 1);
  std::replace(pointer.begin(), pointer.end(), '/', '.');
  return pointer;
}

TEST(ManifestJsonTest, GivesBackTheVeryBytesThatAReleaseWrote) {
  for (const auto& [text, digest] :
       {std::pair(kPlain, kPlainDigest), std::pair(kLabelled, kLabelledDigest)}) {
    Manifest manifest = Parse(text);
    EXPECT_EQ(manifest.digest, digest);
    EXPECT_EQ(SealManifest(manifest), text);
    EXPECT_EQ(manifest.digest, digest);
  }
}

TEST(ManifestJsonTest, ReadsEachField) {
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

TEST(ManifestJsonTest, HasTheSameIdentityHoweverItIsLaidOut) {
  EXPECT_EQ(Parse(json::parse(kLabelled).dump(4)).digest, kLabelledDigest);
  EXPECT_EQ(Parse(std::string(kLabelled) + " \t\r\n").digest, kLabelledDigest);
  EXPECT_EQ(Parse(Replaced("fixture:1", R"(fi\u0078ture:1)")).digest, kLabelledDigest);
}

TEST(ManifestJsonTest, KeepsTheTimeAsItWasWritten) {
  Manifest manifest = Parse(With("/created_at", "2026-11-23T14:58:59.50+02:00"));
  EXPECT_THAT(SealManifest(manifest), HasSubstr(R"("created_at":"2026-11-23T14:58:59.50+02:00")"));
  EXPECT_EQ(base::FormatIndexTime(manifest.created), "2026-11-23 12:58:59.500000000");
}

TEST(ManifestJsonTest, SortsLabelsByTheirBytesAndEscapesOnlyWhatMustBe) {
  Manifest manifest = Parse(With("/labels", {{"b", "\"\\/"},
                                             {"a", "\b\t\n\f\r\x01\x1f\x7f"},
                                             {"Z", "\u2028\u00e9"},
                                             {"\u00e9", ""},
                                             {"", "empty key"}}));
  EXPECT_THAT(SealManifest(manifest),
              HasSubstr("\"labels\":{\"\":\"empty key\",\"Z\":\"\u2028\u00e9\","
                        "\"a\":\"\\b\\t\\n\\f\\r\\u0001\\u001f\x7f\",\"b\":\"\\\"\\\\/\","
                        "\"\u00e9\":\"\"}"));
}

TEST(ManifestJsonTest, TakesAQcow2UpperAndAParent) {
  json document = json::parse(kPlain);
  document["format"] = "qcow2";
  document["parent"] = "sha512:Anything";
  document["source_sandbox"] = nullptr;
  Manifest manifest = Parse(document.dump());
  EXPECT_EQ(manifest.layers.at(0).format, DiskFormat::kQcow2);
  EXPECT_EQ(manifest.parent, "sha512:Anything");
  EXPECT_EQ(manifest.source_sandbox, std::nullopt);
  const std::string bytes = SealManifest(manifest);
  EXPECT_THAT(bytes, HasSubstr(R"("format":"qcow2","fstype":"ext4")"));
  EXPECT_THAT(bytes, HasSubstr(R"("parent":"sha512:Anything","created_at")"));
  EXPECT_TRUE(bytes.ends_with(R"(,"source_sandbox":null})"));
}

TEST(ManifestJsonTest, RefusesADocumentWithoutOneOfItsFields) {
  for (const std::string field :
       {"/schema", "/format", "/fstype", "/image", "/image/ref", "/image/manifest_digest",
        "/parent", "/created_at", "/labels", "/upper", "/upper/file", "/upper/size_bytes",
        "/upper/integrity", "/upper/integrity/algorithm", "/upper/integrity/digest",
        "/source_sandbox"}) {
    EXPECT_THAT(Refusal(Without(field)), HasSubstr(Spelled(field) + " is missing"));
  }
}

TEST(ManifestJsonTest, RefusesAFieldThatItDoesNotKnow) {
  for (const std::string field :
       {"/extra", "/image/extra", "/upper/extra", "/upper/integrity/extra"}) {
    EXPECT_THAT(Refusal(With(field, nullptr)), HasSubstr(Spelled(field)));
  }
}

TEST(ManifestJsonTest, RefusesAFieldOfAnotherType) {
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
        EXPECT_NO_THROW(Parse(With(field, value))) << field << " " << value;
      } else {
        const bool in_map = field == "/labels/owner";
        EXPECT_THAT(Refusal(With(field, value)), HasSubstr(in_map ? "labels" : Spelled(field)));
      }
    }
  }
}

TEST(ManifestJsonTest, RefusesADocumentThatIsNoObject) {
  for (const std::string_view text : {"", " ", "null", "1", "\"x\"", "[]", "[{}]"}) Refusal(text);
}

TEST(ManifestJsonTest, RefusesAnotherSchema) {
  for (const std::string_view schema : {"2", "0", "-1", "1.0", "1e0", "\"1\"", "true", "null"}) {
    EXPECT_THAT(Refusal(Replaced(R"("schema":1)", R"("schema":)" + std::string(schema))),
                HasSubstr("schema"));
  }
}

TEST(ManifestJsonTest, RefusesAnotherFormat) {
  for (const char* format : {"", "RAW", "vmdk"}) {
    EXPECT_THAT(Refusal(With("/format", format)), HasSubstr("format"));
  }
}

TEST(ManifestJsonTest, RefusesEmptyTexts) {
  for (const std::string field : {"/fstype", "/image/ref", "/image/manifest_digest", "/upper/file",
                                  "/created_at", "/parent", "/upper/integrity/algorithm"}) {
    EXPECT_THAT(Refusal(With(field, "")), HasSubstr(Spelled(field)));
  }
}

TEST(ManifestJsonTest, RefusesADigestThatIsNotAlgorithmAndValue) {
  for (const std::string field : {"/parent", "/image/manifest_digest", "/upper/integrity/digest"}) {
    for (const char* digest : {"0123456789abcdef", ":abc", "sha256:", ":"}) {
      EXPECT_THAT(Refusal(With(field, digest)), HasSubstr(Spelled(field)));
    }
  }
}

TEST(ManifestJsonTest, RefusesAnUpperThatIsNotOnePlainFileName) {
  for (const std::string& file :
       {std::string("a/b"), std::string("/etc/passwd"), std::string("../upper.ext4"),
        std::string(".."), std::string("."), std::string("upper.ext4/"), std::string("a\0b", 3),
        std::string(256, 'u')}) {
    EXPECT_THAT(Refusal(With("/upper/file", file)), HasSubstr("upper.file"));
  }
}

TEST(ManifestJsonTest, RefusesAReservedNameForTheUpper) {
  for (const char* file :
       {"manifest.json", "snapshot.json", ".manifest.json.legacy", ".snapshot-migration.lock"}) {
    EXPECT_THAT(Refusal(With("/upper/file", file)), HasSubstr("upper.file"));
  }
}

TEST(ManifestJsonTest, RefusesAnInvalidSize) {
  for (const std::string_view size :
       {"9007199254740992", "18446744073709551615", "18446744073709551616", "-1", "-0", "1.0",
        "16777216.5", "1e3", "\"16777216\"", "null"}) {
    EXPECT_THAT(Refusal(Replaced("16777216", size)), HasSubstr("upper.size_bytes"));
  }
  EXPECT_EQ(Parse(Replaced("16777216", "9007199254740991")).size_bytes, base::kMaxJsonInteger);
  EXPECT_EQ(Parse(Replaced("16777216", "0")).size_bytes, 0U);
}

TEST(ManifestJsonTest, RefusesATimeThatIsNotRfc3339) {
  for (const char* time :
       {"yesterday", "2026-11-23", "2026-11-23T12:58:59", "2026-13-23T12:58:59Z",
        "2026-02-30T12:58:59Z", "2026-11-23T24:00:00Z", "2026-11-23T12:60:00Z",
        "2026-11-23T12:58:61Z", "2026-11-23T12:58:59.Z", "2026-11-23T12:58:59Zjunk",
        "2026-11-23T12:58:59+2:00", "26-11-23T12:58:59Z", " 2026-11-23T12:58:59Z"}) {
    EXPECT_THAT(Refusal(With("/created_at", time)), HasSubstr("created_at")) << time;
  }
}

TEST(ManifestJsonTest, RefusesAKeyThatAnObjectHasTwice) {
  const std::vector<std::pair<std::string_view, std::string_view>> twice = {
      {R"("schema":1)", R"("schema":1,"schema":1)"},
      {R"("schema":1)", R"("schema":1,"sch\u0065ma":1)"},
      {R"("ref":"fixture:1")", R"("ref":"fixture:1","ref":"fixture:1")"},
      {R"("owner":"fixture")", R"("owner":"fixture","owner":"other")"},
      {R"("file":"upper.ext4")", R"("file":"upper.ext4","file":"upper.ext4")"},
      {R"("algorithm":)", R"("algorithm":"sha256","algorithm":)"}};
  for (const auto& [from, to] : twice) EXPECT_THAT(Refusal(Replaced(from, to)), HasSubstr("dupl"));
}

TEST(ManifestJsonTest, RefusesADocumentNestedTooDeeply) {
  for (const std::size_t depth : {128U, 1'000U, 1'000'000U}) {
    EXPECT_THAT(Refusal(std::string(depth, '[')), HasSubstr("deep"));
    const std::string nested = std::string(depth, '[') + std::string(depth, ']');
    EXPECT_THAT(Refusal(Replaced(R"("post-deps")", nested)), HasSubstr("deep"));
  }
}

TEST(ManifestJsonTest, RefusesWhatIsNotUtf8) {
  for (const std::string_view text : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "caf\xe9", "\xe2\x82", R"(\ud800)", R"(\udc00\ud800)"}) {
    Refusal(Replaced("post-deps", text));
  }
  Refusal("\xef\xbb\xbf" + std::string(kLabelled));
}

TEST(ManifestJsonTest, RefusesWhatIsNotQuiteJson) {
  Refusal(std::string(kLabelled) + "x");
  Refusal(std::string(kLabelled) + std::string(1, '\0'));
  Refusal(std::string(kLabelled) + std::string(kLabelled));
  Refusal(Replaced(R"("labels":{)", R"("labels":{,)"));
  Refusal(Replaced(R"("post-deps"})", R"("post-deps",})"));
  Refusal(Replaced("16777216", "016777216"));
  Refusal(Replaced("16777216", "NaN"));
  Refusal(Replaced("post-deps", "post\ndeps"));
  Refusal("/* a comment */" + std::string(kLabelled));
}

TEST(ManifestJsonTest, RefusesADocumentThatEndsTooEarlyWhereverThatIs) {
  for (std::size_t length = 0; length < kLabelled.size(); ++length) {
    Refusal(kLabelled.substr(0, length));
  }
}

}  // namespace
}  // namespace msb::artifact
