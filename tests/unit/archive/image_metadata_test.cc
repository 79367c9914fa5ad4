// SPDX-License-Identifier: Apache-2.0

#include "src/archive/image_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/base/digest.h"
#include "src/base/json.h"
#include "tests/support/support.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using base::Json;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kFirst = "sha256:" + std::string(64, 'a');
const std::string kSecond = "sha256:" + std::string(64, 'b');

// The parts of an image's metadata, which a test may change before they are assembled.
struct Parts {
  Json config = {{"rootfs", {{"type", "layers"}, {"diff_ids", {kFirst, kSecond, kFirst}}}}};
  Json manifest = {{"schemaVersion", 2}, {"layers", {BlobOf("1"), BlobOf("2"), BlobOf("1")}}};
  Json metadata = {{"layers", {LayerOf(kFirst, "1"), LayerOf(kSecond, "2"), LayerOf(kFirst, "1")}},
                   {"config", {{"env", Json::array()}}}};

  static Json BlobOf(const std::string& layer) {
    return {{"digest", base::Sha256Digest(layer)}, {"size", 1}};
  }
  static Json LayerOf(const std::string& diff_id, const std::string& layer) {
    return {{"digest", base::Sha256Digest(layer)}, {"diff_id", diff_id}};
  }

  // Assembles the metadata with the digests of its parts, and then applies change to it.
  std::string Seal(const std::function<void(Json& metadata)>& change = {}) const {
    Json sealed = metadata;
    sealed["raw_config_json"] = config.dump(2);
    sealed["config_digest"] = base::Sha256Digest(config.dump(2));
    Json sealed_manifest = manifest;
    if (manifest.is_object() && !manifest.contains("config")) {
      sealed_manifest["config"]["digest"] = sealed["config_digest"];
    }
    sealed["raw_manifest_json"] = sealed_manifest.dump();
    sealed["manifest_digest"] = base::Sha256Digest(sealed_manifest.dump());
    if (change) change(sealed);
    return sealed.dump();
  }
};

std::string Refusal(const std::string& text) {
  try {
    ParseImageMetadata(text);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

TEST(ImageMetadataTest, ReadsMetadataOfReleases) {
  for (const std::string& release : test::FixtureReleases()) {
    const test::TempDir dir;
    const fs::path cache = test::UnpackFixtureHome(release, dir.path()) / "cache";
    const ImageMetadata metadata =
        ParseImageMetadata(test::ReadFile(fs::directory_iterator(cache / "manifests")->path()));
    EXPECT_EQ(metadata.manifest_digest,
              "sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac");
    EXPECT_THAT(
        metadata.diff_ids,
        ElementsAre("sha256:584329b971e2b15dffc87d6295a65e3972b959c35fc8a456a312239995b6fff3"));
  }
}

TEST(ImageMetadataTest, ReadsLayersInTheirOrder) {
  const Parts parts;
  EXPECT_THAT(ParseImageMetadata(parts.Seal()).diff_ids, ElementsAre(kFirst, kSecond, kFirst));
}

TEST(ImageMetadataTest, ReadsAnImageWithoutLayers) {
  Parts parts;
  parts.config["rootfs"]["diff_ids"] = Json::array();
  parts.manifest["layers"] = Json::array();
  parts.metadata["layers"] = Json::array();
  EXPECT_THAT(ParseImageMetadata(parts.Seal()).diff_ids, ElementsAre());
}

TEST(ImageMetadataTest, RefusesAnotherDigest) {
  const Parts parts;
  EXPECT_THAT(Refusal(parts.Seal([](Json& sealed) { sealed["manifest_digest"] = kFirst; })),
              HasSubstr("raw_manifest_json has digest"));
  EXPECT_THAT(Refusal(parts.Seal([](Json& sealed) { sealed["raw_manifest_json"] = "{}"; })),
              HasSubstr("raw_manifest_json has digest"));
  EXPECT_THAT(Refusal(parts.Seal([](Json& sealed) { sealed["raw_config_json"] = "{}"; })),
              HasSubstr("raw_config_json has digest"));
  EXPECT_THAT(Refusal(parts.Seal([](Json& sealed) { sealed["config_digest"] = kFirst; })),
              HasSubstr("raw_manifest_json.config.digest"));
  // Another config, which the manifest does not name.
  EXPECT_THAT(Refusal(parts.Seal([](Json& sealed) {
                sealed["raw_config_json"] = "{}";
                sealed["config_digest"] = base::Sha256Digest("{}");
              })),
              HasSubstr("raw_manifest_json.config.digest"));
}

TEST(ImageMetadataTest, RefusesDigestsOfAnotherForm) {
  const Parts parts;
  for (const char* field : {"manifest_digest", "config_digest"}) {
    for (const std::string& digest :
         {std::string("sha256:../../../etc/shadow"), "sha512:" + std::string(128, 'a'),
          "sha256:" + std::string(64, 'A'), std::string()}) {
      EXPECT_THAT(Refusal(parts.Seal([&](Json& sealed) { sealed[field] = digest; })),
                  HasSubstr(field));
    }
  }
  Parts other;
  for (const Json& diff_id : {Json("sha256:../../x"), Json("sha512:" + std::string(128, 'a')),
                              Json(kFirst + "0"), Json(1), Json(nullptr)}) {
    other.config["rootfs"]["diff_ids"][1] = diff_id;
    other.metadata["layers"][1]["diff_id"] = diff_id;
    EXPECT_THAT(Refusal(other.Seal()), HasSubstr("diff_ids[1]")) << diff_id;
  }
}

TEST(ImageMetadataTest, RefusesLayersThatAreNotTheImages) {
  Parts fewer;
  fewer.metadata["layers"].erase(2);
  EXPECT_THAT(Refusal(fewer.Seal()), HasSubstr("layers has 2 layers, but the image has 3"));
  Parts more;
  more.metadata["layers"].push_back(Parts::LayerOf(kFirst, "1"));
  EXPECT_THAT(Refusal(more.Seal()), HasSubstr("layers has 4 layers, but the image has 3"));
  Parts disordered;
  std::swap(disordered.metadata["layers"][0], disordered.metadata["layers"][1]);
  EXPECT_THAT(Refusal(disordered.Seal()), HasSubstr("layers[0].diff_id"));
  Parts other_blob;
  other_blob.metadata["layers"][1] = Parts::LayerOf(kSecond, "3");
  EXPECT_THAT(Refusal(other_blob.Seal()), HasSubstr("layers[1].digest"));
  Parts manifest;
  manifest.manifest["layers"].erase(1);
  EXPECT_THAT(Refusal(manifest.Seal()), HasSubstr("raw_manifest_json.layers has 2"));
}

TEST(ImageMetadataTest, RefusesAListOfManifests) {
  Parts parts;
  parts.manifest = {{"schemaVersion", 2},
                    {"manifests", {{{"digest", kFirst}}}},
                    {"config", {{"mediaType", "x"}}}};
  EXPECT_NE(Refusal(parts.Seal()), "");
  parts.manifest = Json::array({1});
  EXPECT_THAT(Refusal(parts.Seal()), HasSubstr("raw_manifest_json"));
}

TEST(ImageMetadataTest, RefusesMissingAndMistypedFields) {
  const Parts parts;
  for (const char* field :
       {"manifest_digest", "config_digest", "raw_manifest_json", "raw_config_json", "layers"}) {
    EXPECT_THAT(Refusal(parts.Seal([&](Json& sealed) { sealed.erase(field); })), HasSubstr(field));
    EXPECT_THAT(Refusal(parts.Seal([&](Json& sealed) { sealed[field] = 1; })), HasSubstr(field));
  }
  for (const char* field : {"rootfs", "diff_ids"}) {
    Parts other;
    (std::string(field) == "rootfs" ? other.config : other.config["rootfs"]).erase(field);
    EXPECT_THAT(Refusal(other.Seal()), HasSubstr(field));
  }
  Parts no_diff_id;
  no_diff_id.metadata["layers"][2].erase("diff_id");
  EXPECT_THAT(Refusal(no_diff_id.Seal()), HasSubstr("layers[2].diff_id"));
}

TEST(ImageMetadataTest, RefusesMalformedJson) {
  const Parts parts;
  for (const char* text : {"", "{", "[]", "null", "{\"layers\":[],\"layers\":[]}"}) {
    EXPECT_NE(Refusal(text), "") << text;
  }
  EXPECT_THAT(Refusal(parts.Seal([](Json& sealed) {
                sealed["raw_manifest_json"] = "{";
                sealed["manifest_digest"] = base::Sha256Digest("{");
              })),
              HasSubstr("raw_manifest_json"));
}

}  // namespace
}  // namespace msb::archive
