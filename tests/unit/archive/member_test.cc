// SPDX-License-Identifier: Apache-2.0

#include "src/archive/member.h"

#include <gtest/gtest.h>

#include "tests/support/support.h"

namespace msb::archive {
namespace {

const std::string kFullHex(64, 'a');
const std::string kHex16 = "0123456789abcdef";
const std::string kFsmeta = "fsmeta/sha256_" + kFullHex + ".erofs";

// Describes a path as "LIY kind snapshot file": the layouts that have it, L(egacy), I(nventory) or
// (la)Y(ered), and its meaning. Returns an empty string for a path that no member may have.
std::string Described(std::string_view path) {
  const auto parsed = ParseMemberPath(path);
  if (!parsed) return {};
  return (parsed->in_legacy ? "L" : "") + std::string(parsed->in_inventory ? "I" : "") +
         (parsed->in_layered ? "Y" : "") + " " +
         (parsed->kind == MemberKind::kInventory ? "inventory"
                                                 : std::string(KindName(parsed->kind))) +
         " " + parsed->snapshot + " " + parsed->file;
}

TEST(MemberTest, KnowsThePathsOfEachLayout) {
  const std::string old = "sha256-" + kHex16;
  EXPECT_EQ(Described(old + "/manifest.json"), "L snapshot-descriptor " + old + " ");
  EXPECT_EQ(Described(old + "/upper.ext4"), "L file-payload " + old + " upper.ext4");
  EXPECT_EQ(Described(old + "/d\xc3\xa9 j\xc3\xa0"),
            "L file-payload " + old + " d\xc3\xa9 j\xc3\xa0");
  EXPECT_EQ(Described("cache/" + kFsmeta), "L image-object  " + kFsmeta);
  EXPECT_EQ(Described("cache/manifests/" + kFullHex + ".json"),
            "L image-metadata  manifests/" + kFullHex + ".json");
  EXPECT_EQ(Described("snapshots/" + kFullHex + "/snapshot.json"),
            "I snapshot-descriptor " + kFullHex + " ");
  EXPECT_EQ(Described("files/" + kFullHex + "/upper.qcow2"),
            "I file-payload " + kFullHex + " upper.qcow2");
  EXPECT_EQ(Described("images/" + kFsmeta), "IY image-object  " + kFsmeta);
  EXPECT_EQ(Described("images/manifests/" + kFullHex + ".json"),
            "IY image-metadata  manifests/" + kFullHex + ".json");
  EXPECT_EQ(Described("archive.json"), "IY inventory  ");
  EXPECT_EQ(Described("snapshots/snap_x-Y_9/snapshot.json"), "Y snapshot-descriptor snap_x-Y_9 ");
  EXPECT_EQ(Described("snapshots/snap_1/metadata.json"), "Y snapshot-metadata snap_1 ");
  EXPECT_EQ(Described("layers/layer_1.raw"), "Y file-payload  layers/layer_1.raw");
  EXPECT_EQ(Described("layers/L.qcow2"), "Y file-payload  layers/L.qcow2");
}

void ExpectNoMembers(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) EXPECT_EQ(Described(path), "") << path;
}

TEST(MemberTest, KnowsNoOtherPathOfTheLegacyLayout) {
  const std::string old = "sha256-" + kHex16;
  ExpectNoMembers({"",
                   "/",
                   ".",
                   "..",
                   "/" + old + "/manifest.json",
                   "./" + old + "/manifest.json",
                   "../" + old + "/manifest.json",
                   old,
                   old + "/",
                   old + "/.",
                   old + "/..",
                   old + "/../x",
                   old + "/a/b",
                   old + "//manifest.json",
                   old + "/./manifest.json",
                   old + "/../" + old + "/manifest.json",
                   old + "/manifest.json/",
                   old + "/a\\b",
                   old + "/a\nb",
                   old + "/a\x7f",
                   old + "/a\xff",
                   old + std::string("/a\0b", 4),
                   old + "/" + std::string(256, 'a'),
                   old + "/snapshot.json",
                   old + "/.manifest.json.legacy",
                   old + "/.snapshot-migration.lock",
                   old + "0/manifest.json",
                   "sha256-" + kHex16.substr(1) + "/manifest.json",
                   "sha256-" + kFullHex + "/manifest.json",
                   "sha256-0123456789ABCDEF/upper.ext4",
                   "sha256-0123456789abcdeg/upper.ext4",
                   "sha256_" + kHex16 + "/manifest.json",
                   "SHA256-" + kHex16 + "/manifest.json"});
}

TEST(MemberTest, KnowsNoOtherPathOfTheInventoryLayout) {
  const std::string upper_case(64, 'A');
  ExpectNoMembers({"archive.json/",
                   "/archive.json",
                   "./archive.json",
                   "Archive.json",
                   "archive.json ",
                   "snapshots",
                   "snapshots/",
                   "snapshots/" + kFullHex,
                   "snapshots/" + kFullHex + "/",
                   "snapshots/" + kFullHex + "/metadata.json",
                   "snapshots/" + kFullHex + "/manifest.json",
                   "snapshots/" + kFullHex + "/snapshot.json/",
                   "snapshots/" + kFullHex + "/x/snapshot.json",
                   "snapshots/" + kFullHex + "a/snapshot.json",
                   "snapshots/" + kFullHex.substr(1) + "/snapshot.json",
                   "snapshots/" + upper_case + "/snapshot.json",
                   "snapshots//snapshot.json",
                   "snapshots/../snapshot.json",
                   "files/upper.ext4",
                   "files/" + kFullHex,
                   "files/" + kFullHex + "/",
                   "files/" + kFullHex + "/..",
                   "files/" + kFullHex + "/a/b",
                   "files/" + kFullHex + "/snapshot.json",
                   "files/" + kFullHex + "/manifest.json",
                   "files/" + upper_case + "/upper.ext4",
                   "files/snap_1/upper.ext4"});
}

TEST(MemberTest, KnowsNoOtherPathOfTheLayeredLayout) {
  ExpectNoMembers({"snapshots/snap/snapshot.json", "snapshots/snap_/snapshot.json",
                   "snapshots/Snap_1/snapshot.json", "snapshots/snap_a.b/snapshot.json",
                   "snapshots/snap_\xc3\xa9/snapshot.json",
                   "snapshots/snap_" + std::string(124, 'a') + "/snapshot.json",
                   "snapshots/snap_1/group-member.json", "layers/", "layers/.raw", "layers/layer_1",
                   "layers/layer_1.", "layers/layer_1.RAW", "layers/layer_1.raw.raw",
                   "layers/layer 1.raw", "layers/a/b.raw", "layers/../layer_1.raw",
                   "layers/" + std::string(129, 'a') + ".raw",
                   "layers/sha256_" + kFullHex + ".erofs"});
}

TEST(MemberTest, KnowsNoOtherImageFile) {
  ExpectNoMembers({kFsmeta, "images/", "images/fsmeta/x.erofs", "images/" + kFsmeta + "/",
                   "images/./" + kFsmeta, "images/../" + kFsmeta, "cache/",
                   "cache/images/" + kFsmeta, "cache/../cache/" + kFsmeta});
}

TEST(MemberTest, TakesIdsOfUpTo128Bytes) {
  EXPECT_NE(Described("snapshots/snap_" + std::string(123, 'a') + "/snapshot.json"), "");
  EXPECT_NE(Described("layers/" + std::string(128, 'a') + ".raw"), "");
}

TEST(MemberTest, BuildsThePathsThatItKnows) {
  const std::vector<std::pair<Layout, std::string>> snapshots = {
      {Layout::kLegacy, "sha256-" + kHex16},
      {Layout::kInventory, kFullHex},
      {Layout::kLayered, "snap_1"}};
  for (const auto& [layout, snapshot] : snapshots) {
    const auto manifest = ParseMemberPath(ManifestPath(layout, snapshot));
    ASSERT_TRUE(manifest.has_value());
    EXPECT_EQ(manifest->kind, MemberKind::kManifest);
    EXPECT_EQ(manifest->snapshot, snapshot);
    const bool layered = layout == Layout::kLayered;
    const std::string file = layered ? "layers/layer_1.raw" : "upper.ext4";
    const auto payload = ParseMemberPath(PayloadPath(layout, snapshot, file));
    ASSERT_TRUE(payload.has_value());
    EXPECT_EQ(payload->kind, MemberKind::kPayload);
    EXPECT_EQ(payload->snapshot, layered ? "" : snapshot);
    EXPECT_EQ(payload->file, file);
    const auto image = ParseMemberPath(ImagePath(layout, kFsmeta));
    ASSERT_TRUE(image.has_value());
    EXPECT_EQ(image->kind, MemberKind::kImageObject);
    EXPECT_EQ(image->file, kFsmeta);
    for (const auto& path : {manifest, payload, image}) {
      EXPECT_TRUE(layout == Layout::kLegacy      ? path->in_legacy
                  : layout == Layout::kInventory ? path->in_inventory
                                                 : path->in_layered);
    }
  }
  EXPECT_EQ(ManifestPath(Layout::kLegacy, "sha256-" + kHex16),
            "sha256-" + kHex16 + "/manifest.json");
  EXPECT_EQ(ImagePath(Layout::kLegacy, kFsmeta), "cache/" + kFsmeta);
}

TEST(MemberTest, NoInventoryListsItself) {
  EXPECT_MSB_ERROR(KindName(MemberKind::kInventory), ErrorKind::kInternal,
                   "archive.json must not list itself");
}

}  // namespace
}  // namespace msb::archive
