// SPDX-License-Identifier: Apache-2.0

#include "src/archive/image_names.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace msb::archive {
namespace {

const std::string kHex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const std::string kDigest = "sha256:" + kHex;

// Each pair was observed with releases 0.6.18 and 0.7.2: to archive a snapshot of the first with
// its image, they look for cache/manifests/HEX.json, where HEX is the SHA-256 of the second.
TEST(ImageNamesTest, NormalizesReferencesAsTheRuntimesDo) {
  const std::vector<std::pair<std::string, std::string>> references = {
      {"fixture:1", "docker.io/library/fixture:1"},
      {"alpine", "docker.io/library/alpine:latest"},
      {"a:Latest", "docker.io/library/a:Latest"},
      {"a/b", "docker.io/a/b:latest"},
      {"a/b:c", "docker.io/a/b:c"},
      {"x/y/z", "docker.io/x/y/z:latest"},
      {"library/a", "docker.io/library/a:latest"},
      {"docker.io/a", "docker.io/library/a:latest"},
      {"docker.io/a/b", "docker.io/a/b:latest"},
      {"docker.io/library/a:1", "docker.io/library/a:1"},
      {"docker.io", "docker.io/library/docker.io:latest"},
      {"index.docker.io/a", "docker.io/library/a:latest"},
      {"index.docker.io/a/b:2", "docker.io/a/b:2"},
      {"index.docker.io/library/a", "docker.io/library/a:latest"},
      {"registry-1.docker.io/library/a", "registry-1.docker.io/library/a:latest"},
      {"ghcr.io/x/y", "ghcr.io/x/y:latest"},
      {"ghcr.io/x/y:z", "ghcr.io/x/y:z"},
      {"1.2.3.4/a", "1.2.3.4/a:latest"},
      {"x.y", "docker.io/library/x.y:latest"},
      {"x.y:1", "docker.io/library/x.y:1"},
      {"x.y:1/a", "x.y:1/a:latest"},
      {"x:5000/a", "x:5000/a:latest"},
      {"localhost", "docker.io/library/localhost:latest"},
      {"localhost:5000", "docker.io/library/localhost:5000"},
      {"localhost/a", "localhost/a:latest"},
      {"localhost:5000/a:1", "localhost:5000/a:1"},
      // Case is kept. A name in upper case is another host, or is not taken for a host.
      {"LOCALHOST/a", "docker.io/LOCALHOST/a:latest"},
      {"Docker.io/a", "Docker.io/a:latest"},
      {"GHCR.io/x/y:z", "GHCR.io/x/y:z"},
      {"UP/x", "docker.io/UP/x:latest"},
      // A digest keeps the tag before it, and replaces a missing tag.
      {"alpine@" + kDigest, "docker.io/library/alpine@" + kDigest},
      {"alpine:3@" + kDigest, "docker.io/library/alpine:3@" + kDigest},
      {"ghcr.io/x/y:z@" + kDigest, "ghcr.io/x/y:z@" + kDigest},
      {kDigest, "docker.io/library/" + kDigest},
  };
  for (const auto& [reference, normalized] : references) {
    EXPECT_EQ(NormalizedReference(reference), normalized) << reference;
  }
}

TEST(ImageNamesTest, NormalizesMalformedReferences) {
  for (const char* text : {"", "/", ":", "@", "/tmp/disk.img", "a:", "//", "@/:", "a@b@c", ":/@"}) {
    EXPECT_FALSE(NormalizedReference(text).empty()) << text;
  }
}

TEST(ImageNamesTest, NamesFiles) {
  // As in the fixtures.
  EXPECT_EQ(MetadataFile("fixture:1"),
            "manifests/760bb9b210461349d8d24a0f1b916cccd062d4200229b0758726ffbc4dd2bdea.json");
  EXPECT_EQ(FsmetaFile(kDigest), "fsmeta/sha256_" + kHex + ".erofs");
  EXPECT_EQ(VmdkFile(kDigest), "vmdk/sha256_" + kHex + ".vmdk");
  EXPECT_EQ(LayerFile(kDigest), "layers/sha256_" + kHex + ".erofs");
  EXPECT_EQ(DiskImageFile(kDigest, DiskFormat::kRaw), "disks/sha256_" + kHex + ".raw");
  EXPECT_EQ(DiskImageFile(kDigest, DiskFormat::kQcow2), "disks/sha256_" + kHex + ".qcow2");
}

TEST(ImageNamesTest, KnowsItsOwnNames) {
  for (const std::string& file :
       {MetadataFile("a"), FsmetaFile(kDigest), VmdkFile(kDigest), LayerFile(kDigest),
        DiskImageFile(kDigest, DiskFormat::kRaw), DiskImageFile(kDigest, DiskFormat::kQcow2)}) {
    EXPECT_TRUE(IsImageFile(file)) << file;
    EXPECT_EQ(IsJoinedFile(file), file == FsmetaFile(kDigest) || file == LayerFile(kDigest));
  }
}

TEST(ImageNamesTest, KnowsNoOtherNames) {
  const std::string upper = "0123456789ABCDEF" + kHex.substr(16);
  for (const std::string& file : {std::string(),
                                  std::string("manifests/"),
                                  std::string("manifests/.json"),
                                  "manifests/sha256_" + kHex + ".json",
                                  "manifests/" + upper + ".json",
                                  "manifests/" + kHex + ".jsonx",
                                  "manifests/" + kHex.substr(1) + ".json",
                                  "manifests/0" + kHex + ".json",
                                  "manifests/../" + kHex.substr(3) + ".json",
                                  "/manifests/" + kHex + ".json",
                                  "cache/manifests/" + kHex + ".json",
                                  kHex + ".json",
                                  "layers/" + kHex + ".erofs",
                                  "layers/sha256_" + upper + ".erofs",
                                  "layers/sha256_" + kHex + ".erofs.lock",
                                  "layers/sha256_" + kHex + ".vmdk",
                                  "layers/sha512_" + kHex + ".erofs",
                                  std::string("layers/sha256_.erofs"),
                                  std::string("layers/sha256_erofs"),
                                  "fsmeta/sha256_" + kHex + ".json",
                                  "vmdk/sha256_" + kHex + ".erofs",
                                  "vmdk/sha256_" + kHex + ".vmdk.lock",
                                  "disks/sha256_" + kHex + ".erofs",
                                  "disks/sha256_" + kHex,
                                  "disks/pins/" + kHex,
                                  "flat/sha256_" + kHex + ".raw",
                                  "layers/sha256_" + kHex + ".erofs" + std::string(1, '\0')}) {
    EXPECT_FALSE(IsImageFile(file)) << file;
    EXPECT_FALSE(IsJoinedFile(file)) << file;
  }
}

}  // namespace
}  // namespace msb::archive
