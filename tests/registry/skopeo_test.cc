// SPDX-License-Identifier: Apache-2.0
//
// skopeo, a foreign client, copies and reads what was pushed.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/registry/registry_home.h"

namespace msb::test {
namespace {

using nlohmann::json;
using testing::StartsWith;

constexpr const char* kIndexType = "application/vnd.oci.image.index.v1+json";
constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* kSnapshotType = "application/vnd.msb.snapshot.v1";

class SkopeoTest : public RegistryTest {
 protected:
  void SetUp() override {
    RegistryTest::SetUp();
    if (!IsSkipped() && RunCommand("skopeo --version").status != 0) {
      GTEST_SKIP() << "skopeo is not installed";
    }
  }

  // Runs a command of skopeo, and returns standard output.
  std::string Skopeo(const std::string& arguments) {
    const CommandResult run = RunCommand("skopeo --insecure-policy " + arguments);
    EXPECT_EQ(run.status, 0) << run.output;
    return run.output;
  }

  json Inspect(const std::string& target) {
    return json::parse(
        Skopeo(fmt::format("inspect --raw --tls-verify=false docker://{}", At(target))));
  }

  Client here_ = Qcow2Home("here");
  Client there_ = Home("there");
};

// skopeo 1.9 drops the artifact types of an index, but copies everything else byte for byte.
TEST_F(SkopeoTest, CopiesAChainToAnotherRegistryAndBack) {
  const auto chain = MakeChain(here_, 3);
  const std::string pushed = Snapshot::Push(ctx_, "s3", At("chain:3"), {.with_image = true}, here_);
  const std::string index = pushed.substr(pushed.find('@') + 1);
  DockerRegistry other;
  Skopeo(
      fmt::format("copy --all --src-tls-verify=false --dest-tls-verify=false "
                  "docker://{} docker://{}/copies/chain:copy",
                  At("chain:3"), other.address()));
  EXPECT_EQ(other.storage().Missing(), "");
  const auto lost = Added(other.storage().Blobs(), storage().Blobs());
  EXPECT_TRUE(lost.empty() || (lost.size() == 1 && lost.contains(index)));
  const auto copy =
      Snapshot::Pull(ctx_, other.address() + "/copies/chain:copy", "", {}, there_).Open(ctx_);
  ExpectSame(chain.back(), copy);
  EXPECT_EQ(copy.Verify(ctx_).backing.size(), 3U);
  // And back, to another repository.
  Skopeo(
      fmt::format("copy --all --src-tls-verify=false --dest-tls-verify=false "
                  "docker://{}/copies/chain:copy docker://{}",
                  other.address(), At("back:3")));
  Client third = Home("third");
  EXPECT_EQ(Snapshot::Pull(ctx_, At("back:3"), "", {}, third).Digest(), chain.back().Digest());
  // The library continues from a copy as from the original.
  EXPECT_EQ(Snapshot::Push(ctx_, "s3", At("back:3"), {.with_image = true}, here_),
            At("back@" + index));
}

TEST_F(SkopeoTest, CopiesASnapshotToAnOciLayoutAndBack) {
  Client raw = Home("raw");
  const auto pushed = MakeRaw(raw, "web", 20 << 20, {{0, Noise(300'000, 1)}});
  Snapshot::Push(ctx_, "web", At("web"), {}, raw);
  const std::string layout = dir_ / "layout";
  Skopeo(
      fmt::format("copy --all --src-tls-verify=false docker://{} oci:{}:web", At("web"), layout));
  EXPECT_EQ(json::parse(ReadFile(layout + "/oci-layout"))["imageLayoutVersion"], "1.0.0");
  DockerRegistry other;
  Skopeo(fmt::format("copy --all --dest-tls-verify=false oci:{}:web docker://{}/web", layout,
                     other.address()));
  ExpectSame(pushed, Snapshot::Pull(ctx_, other.address() + "/web", "", {}, there_).Open(ctx_));
}

TEST_F(SkopeoTest, ShowsValidOciDocuments) {
  const auto chain = MakeChain(here_, 2);
  Snapshot::Push(ctx_, "s2", At("chain"), {.with_image = true}, here_);
  const json index = Inspect("chain");
  EXPECT_EQ(index.at("schemaVersion"), 2);
  EXPECT_EQ(index.at("mediaType"), kIndexType);
  EXPECT_EQ(index.at("artifactType"), kSnapshotType);
  EXPECT_EQ(index.at("annotations").at("vnd.msb.snapshot.digest"), chain.back().Digest());
  ASSERT_EQ(index.at("manifests").size(), 3U);
  const auto blobs = storage().Blobs();
  for (const json& entry : index.at("manifests")) {
    EXPECT_EQ(entry.at("mediaType"), kManifestType);
    const std::string digest = entry.at("digest");
    EXPECT_EQ(blobs.at(digest), entry.at("size"));
    const json manifest = Inspect("chain@" + digest);
    EXPECT_EQ(manifest.at("schemaVersion"), 2);
    EXPECT_EQ(manifest.at("mediaType"), kManifestType);
    EXPECT_EQ(manifest.at("config").at("mediaType"), "application/vnd.msb.snapshot.chunks.v1+json");
    EXPECT_FALSE(manifest.at("layers").empty());
    for (const json& layer : manifest.at("layers")) {
      EXPECT_THAT(layer.at("mediaType").get<std::string>(), StartsWith("application/vnd.msb."));
      EXPECT_EQ(blobs.at(layer.at("digest")), layer.at("size"));
    }
  }
  const json head = Inspect("chain@" + index["manifests"][0]["digest"].get<std::string>());
  const json& annotations = head.at("annotations");
  // The name is only valid in this home, so only the index has it.
  EXPECT_EQ(index.at("annotations").at("org.opencontainers.image.title"), "s2");
  EXPECT_FALSE(annotations.contains("org.opencontainers.image.title"));
  EXPECT_EQ(annotations.at("org.opencontainers.image.created"), chain.back().CreatedAt());
  EXPECT_EQ(annotations.at("vnd.msb.snapshot.parent"), chain.front().Digest());
  EXPECT_EQ(annotations.at("vnd.msb.snapshot.label.generation"), "2");
  // The artifact's manifest is stored byte for byte, so its digest is that of the snapshot.
  EXPECT_EQ(head["layers"][0]["digest"], chain.back().Digest());
  EXPECT_EQ(storage().Read(chain.back().Digest()),
            ReadFile(chain.back().Path() + "/snapshot.json"));
}

}  // namespace
}  // namespace msb::test
