// SPDX-License-Identifier: Apache-2.0
//
// What Push and Pull refuse, and what they leave behind then.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/digest.h"
#include "tests/registry/registry_home.h"
#include "tests/support/mounts.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

class RegistryRefusalTest : public RegistryTest {
 protected:
  // Writes a blob of an OCI layout, and returns its descriptor.
  static std::string Blob(const fs::path& layout, const std::string& type,
                          const std::string& bytes) {
    const std::string digest = base::Sha256Digest(bytes);
    WriteFile(layout / "blobs/sha256" / digest.substr(7), bytes);
    return fmt::format(R"({{"mediaType":"{}","digest":"{}","size":{}}})", type, digest,
                       bytes.size());
  }

  // Pushes an image of a container with skopeo; as the only one of an index if in_index is set.
  void PushContainerImage(const std::string& target, bool in_index) {
    const fs::path layout = dir_ / "layout";
    fs::remove_all(layout);
    const std::string type = "application/vnd.oci.image.";
    const std::string config =
        Blob(layout, type + "config.v1+json",
             R"({"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}})");
    const std::string layer = Blob(layout, type + "layer.v1.tar", "not really a layer");
    std::string head = Blob(layout, type + "manifest.v1+json",
                            fmt::format(R"({{"schemaVersion":2,"mediaType":"{}manifest.v1+json",)"
                                        R"("config":{},"layers":[{}]}})",
                                        type, config, layer));
    if (in_index) {
      head = Blob(layout, type + "index.v1+json",
                  fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", head));
    }
    WriteFile(layout / "oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
    WriteFile(layout / "index.json",
              fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", head));
    const CommandResult run =
        RunCommand(fmt::format("skopeo --insecure-policy copy --all --dest-tls-verify=false "
                               "oci:{} docker://{}",
                               layout.native(), At(target)));
    ASSERT_EQ(run.status, 0) << run.output;
  }

  Client here_ = Home("here");
  Client there_ = Home("there");
};

TEST_F(RegistryRefusalTest, NamesAnAbsentTagOrRepository) {
  MakeRaw(here_, "web", 1 << 20, {{0, Noise(4096, 1)}});
  Snapshot::Push(ctx_, "web", At("team/web:v1"), {}, here_);
  for (const std::string& target : {At("team/web:v2"), At("team/other:v1")}) {
    EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, target, "", {}, there_), ErrorKind::kSnapshotNotFound,
                     target, "check the name of the repository and the tag");
  }
  const std::string digest = "sha256:" + std::string(64, 'a');
  EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, At("team/web@" + digest), "", {}, there_),
                   ErrorKind::kSnapshotNotFound, digest, "check the name");
  ExpectNoStages(dir_ / "there");
}

TEST_F(RegistryRefusalTest, RefusesTheImageOfAContainer) {
  if (RunCommand("skopeo --version").status != 0) GTEST_SKIP() << "skopeo is not installed";
  for (const bool in_index : {false, true}) {
    PushContainerImage("alpine:3", in_index);
    EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, At("alpine:3"), "", {}, there_),
                     ErrorKind::kUnsupportedOperation, At("alpine:3"), "is not a snapshot",
                     "name a repository to which a snapshot was pushed");
  }
  ExpectNoStages(dir_ / "there");
  // Push replaces it, since the tag is the caller's.
  MakeRaw(here_, "web", 1 << 20, {{0, Noise(4096, 1)}});
  std::vector<std::string> log;
  Client logging = LocalClient(dir_ / "here", &log);
  Snapshot::Push(ctx_, "web", At("alpine:3"), {}, logging);
  EXPECT_THAT(log, testing::ElementsAre(testing::HasSubstr("cannot reuse")));
  Snapshot::Pull(ctx_, At("alpine:3"), "", {}, there_);
}

TEST_F(RegistryRefusalTest, RefusesWrongArguments) {
  MakeRaw(here_, "web", 1 << 20, {});
  const std::string digest = "@sha256:" + std::string(64, 'a');
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", At("web") + digest, {}, here_),
                   ErrorKind::kInvalidArgument, digest, "name a tag");
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", At("Web"), {}, here_), ErrorKind::kInvalidArgument,
                   "Web", "lower");
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", At("web"), {.level = 20}, here_),
                   ErrorKind::kInvalidArgument, "20", "19");
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", At("web"), {.registry = {.connections = 0}}, here_),
                   ErrorKind::kInvalidArgument, "connections", "64");
  EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, At("web"), "", {.registry = {.retries = 101}}, there_),
                   ErrorKind::kInvalidArgument, "retries", "100");
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "absent", At("web"), {}, here_),
                   ErrorKind::kSnapshotNotFound, "absent");
  EXPECT_EQ(registry().Requests(), std::vector<std::string>());
}

TEST_F(RegistryRefusalTest, NamesTheMissingImage) {
  Client client = Qcow2Home("chain");
  MakeChain(client, 1);
  fs::remove_all(dir_ / "chain/cache/disks");
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "s1", At("chain"), {.with_image = true}, client),
                   ErrorKind::kSnapshotImageMissing, "cache");
}

TEST_F(RegistryRefusalTest, DetectsADamagedDisk) {
  const auto web = MakeRaw(here_, "web", 4 << 20, {{0, Noise(100'000, 1)}});
  const fs::path upper = UpperOf(web);
  fs::permissions(upper, fs::perms::owner_write, fs::perm_options::add);
  PatchFile(upper, 50'000, "damage");
  EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "web", At("web"), {}, here_), ErrorKind::kSnapshotIntegrity,
                   upper.native(), "is damaged", "import or pull it again");
  EXPECT_EQ(storage().Tags("web").size(), 0U);
}

TEST_F(RegistryRefusalTest, ReportsAFullDisk) {
  MakeRaw(here_, "web", 64 << 20, {{0, FastNoise(20 << 20, 1)}});
  Snapshot::Push(ctx_, "web", At("web"), {}, here_);
  PrivateMounts mounts;
  fs::create_directories(dir_ / "small");
  if (!mounts.Tmpfs(dir_ / "small", 8 << 20)) GTEST_SKIP() << mounts.failure();
  EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, At("web"), dir_ / "small", {}, there_), ErrorKind::kIO,
                   "No space left on device", "free");
  EXPECT_EQ(Snapshot::ListDir(ctx_, dir_ / "small", there_).size(), 0U);
}

}  // namespace
}  // namespace msb::test
