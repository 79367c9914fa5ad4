// SPDX-License-Identifier: Apache-2.0
//
// Tests pushes to registries that refuse or fail some requests, or that other users have written
// to. A push must succeed without documents that are only an optimization, and a pushed snapshot
// must be complete.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/digest.h"
#include "src/registry/documents.h"
#include "tests/support/scripted_registry.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kStep = 8 << 20;

ScriptedAnswer Refusal(int status, const std::string& code = "DENIED") {
  return {.status = status,
          .headers = {{"Retry-After", "0"},
                      {"WWW-Authenticate", "Basic realm=\"registry\""},
                      {"Content-Type", "application/json"}},
          .body = fmt::format(R"({{"errors":[{{"code":"{}","message":"no"}}]}})", code)};
}

// A registry, and a home with the raw snapshot "web", whose disk has two chunks, and its child
// "kid", in which the second chunk differs.
class PushObstaclesTest : public ::testing::Test {
 protected:
  PushObstaclesTest() {
    MakeSparseFile(dir_ / "disk", 2 * kStep, {{0, Noise(5000, 1)}, {kStep, Noise(6000, 2)}});
    MakeStoppedSandbox(here_, "web", dir_ / "disk");
    Snapshot::Create(ctx_, "web", {.name = "web", .record_integrity = true}, here_);
    CreateSandbox(ctx_, "kid", {WithSnapshot("web")}, here_).Close();
    PatchFile(GetSandbox(ctx_, "kid", here_).Upper().path, kStep, Noise(7000, 3));
    Snapshot::Create(ctx_, "kid", {.name = "kid", .record_integrity = true}, here_);
  }

  std::string At(const std::string& target) const { return registry_.host() + "/" + target; }

  std::string Push(const std::string& name, const std::string& target,
                   SnapshotPushOptions options = {}) {
    return Snapshot::Push(ctx_, name, At(target), options, here_);
  }

  // Pulls into a new home, and expects the digest of the snapshot.
  void ExpectPulls(const std::string& reference, const std::string& name) {
    Client there = LocalClient(dir_ / fmt::format("there{}", ++homes_));
    EXPECT_EQ(Snapshot::Pull(ctx_, reference, "", {}, there).Digest(),
              Snapshot::Get(ctx_, name, here_).Digest());
  }

  // Returns how many blobs were sent to a repository.
  std::size_t Sent(const std::string& repository) const {
    return registry_.Requests("PUT", fmt::format("/v2/{}/blobs/uploads/*", repository)).size();
  }

  const Context ctx_ = Soon();
  TempDir dir_;
  ScriptedRegistry registry_;
  std::vector<std::string> log_;
  Client here_ = LocalClient(dir_ / "here", &log_);
  int homes_ = 0;
};

TEST_F(PushObstaclesTest, GoesOnIfAnotherRepositoryCannotBeRead) {
  Push("web", "team/a");
  const std::string origins = ReadFile(dir_ / "here/cache/registries.json");
  for (const int status : {400, 401, 403, 405, 500}) {
    WriteFile(dir_ / "here/cache/registries.json", origins);
    registry_.Answer("GET", "/v2/team/a/*", Refusal(status));
    log_.clear();
    const std::string target = fmt::format("team/b{}", status);
    const std::string pushed = Push("kid", target);
    EXPECT_THAT(log_, ElementsAre(testing::AllOf(HasSubstr("cannot reuse chunks"),
                                                 HasSubstr("repository 'team/a'"),
                                                 HasSubstr(std::to_string(status)))));
    ExpectPulls(pushed, "kid");
  }
}

TEST_F(PushObstaclesTest, ReadsARepositoryThatFailsAtMostTwice) {
  Push("web", "team/a");
  registry_.Answer("GET", "/v2/team/a/*", Refusal(503));
  const std::size_t before = registry_.Requests("GET", "/v2/team/a/*").size();
  Push("kid", "team/b");
  EXPECT_EQ(registry_.Requests("GET", "/v2/team/a/*").size(), before + 2);
}

TEST_F(PushObstaclesTest, GoesOnIfTheTargetCannotBeRead) {
  for (const int status : {400, 401, 403, 405, 500}) {
    const std::string repository = fmt::format("team/new{}", status);
    registry_.Answer("GET", "/v2/" + repository + "/*", Refusal(status));
    registry_.Answer("HEAD", "/v2/" + repository + "/blobs/*", Refusal(403));
    const std::string pushed = Push("web", repository);
    EXPECT_TRUE(registry_.Manifest(repository, pushed.substr(pushed.find("sha256:")))) << status;
  }
}

TEST_F(PushObstaclesTest, AsksOnlyForTheAccessThatItNeeds) {
  registry_.RequireTokens({});
  Push("web", "team/a");
  for (const ScriptedRequest& request : registry_.Requests("*", "/token")) {
    EXPECT_THAT(request.query, HasSubstr("push")) << "a user may have no other access";
  }
}

TEST_F(PushObstaclesTest, SendsWhatCannotBeMounted) {
  Push("web", "team/a");
  for (const int status : {403, 500, 501}) {
    const std::string repository = fmt::format("team/b{}", status);
    registry_.On("POST", "/v2/" + repository + "/*", [status](const ScriptedRequest& request) {
      const bool mount = request.query.find("mount=") != std::string::npos;
      return mount ? std::optional(Refusal(status)) : std::nullopt;
    });
    ExpectPulls(Push("kid", repository, {.level = 5}), "kid");
  }
}

// Makes chunk 1 of "web" name the blob of chunk 0, in the manifest that the tag of the snapshot
// names.
class HostileTagTest : public PushObstaclesTest {
 protected:
  // Returns the tag of the snapshot.
  std::string Tag(const std::string& name) {
    return "snapshot-" + Snapshot::Get(ctx_, name, here_).Digest().substr(7);
  }

  void Tamper(const std::string& repository, const std::string& name,
              const std::function<void(Json& table)>& change) {
    Json manifest = Json::parse(*registry_.Manifest(repository, Tag(name)));
    Json table = Json::parse(*registry_.Blob(repository, manifest["config"]["digest"]));
    change(table);
    const std::string text = table.dump();
    manifest["config"]["digest"] = registry_.AddBlob(repository, text);
    manifest["config"]["size"] = text.size();
    registry_.AddManifest(repository, Tag(name), std::string(registry::kManifestMediaType),
                          manifest.dump());
  }

  static void SwapBlob(Json& table) {
    Json& chunks = table["chunks"];
    chunks[1]["digest"] = chunks[0]["digest"];
    chunks[1]["size"] = chunks[0]["size"];
  }

  // Removes what this home knows about registries.
  void ForgetOrigins() { fs::remove(dir_ / "here/cache/registries.json"); }
};

TEST_F(HostileTagTest, UsesTheTableThatThisHomeHasPushed) {
  Push("kid", "team/a");
  Tamper("team/a", "kid", SwapBlob);
  const std::size_t sent = Sent("team/a");
  ExpectPulls(Push("kid", "team/a:v2"), "kid");
  EXPECT_EQ(Sent("team/a"), sent);
  EXPECT_THAT(log_, IsEmpty());
  // The table is also used for a push to another repository, which mounts the blobs.
  Tamper("team/a", "kid", SwapBlob);
  ExpectPulls(Push("kid", "team/b", {.level = 9}), "kid");
}

TEST_F(HostileTagTest, RefusesATableThatNamesOneBlobTwice) {
  Push("web", "team/a");
  registry_.AddManifest("team/a", "latest", "text/plain", "");
  Tamper("team/a", "web", SwapBlob);
  ForgetOrigins();
  ExpectPulls(Push("kid", "team/a:kid"), "kid");
  EXPECT_THAT(log_, Contains(HasSubstr("one blob for chunks with different content")));
}

TEST_F(HostileTagTest, RefusesTheTableOfAnotherSnapshot) {
  Push("kid", "team/a");
  registry_.AddManifest("team/a", Tag("web"), std::string(registry::kManifestMediaType),
                        *registry_.Manifest("team/a", Tag("kid")));
  registry_.AddManifest("team/a", "latest", "text/plain", "");
  ForgetOrigins();
  ExpectPulls(Push("web", "team/a:web"), "web");
  EXPECT_THAT(log_, Contains(testing::AllOf(HasSubstr(Tag("web")), HasSubstr("is that of"))));
}

// Each table is consistent, but a chunk that is sent has the blob that the table names for another.
TEST_F(HostileTagTest, SendsAllChunksIfATableTurnsOutToBeWrong) {
  Push("web", "team/a");
  Push("kid", "team/a:kid");
  const Json changed = Json::parse(*registry_.Manifest("team/a", Tag("kid")));
  registry_.AddManifest("team/a", "kid", "text/plain", "");
  registry_.AddManifest("team/a", "latest", "text/plain", "");
  registry_.AddManifest("team/a", Tag("kid"), "text/plain", "");
  // The table names the second blob of "kid" for the first chunk of "web", which "kid" shares.
  Tamper("team/a", "web", [&](Json& table) {
    table["chunks"][0]["digest"] = changed["layers"][2]["digest"];
    table["chunks"][0]["size"] = changed["layers"][2]["size"];
  });
  ForgetOrigins();
  ExpectPulls(Push("kid", "team/a:kid2"), "kid");
  EXPECT_THAT(log_, Contains(HasSubstr("contradict each other")));
}

TEST_F(HostileTagTest, DoesNotTrustThePulledTableOfChunksThatWereHere) {
  Push("web", "team/a");
  Push("kid", "team/a:kid");
  // A home that has "web" gets only the other chunk, so it cannot notice that the first is wrong.
  Client there = LocalClient(dir_ / "there");
  Snapshot::Pull(ctx_, At("team/a"), "", {.name = "web"}, there);
  Json index = Json::parse(*registry_.Manifest("team/a", "kid"));
  Tamper("team/a", "kid", [&](Json& table) {
    const std::string junk = Noise(100, 9);
    table["chunks"][0]["digest"] = registry_.AddBlob("team/a", junk);
    table["chunks"][0]["size"] = junk.size();
  });
  Json manifest = Json::parse(*registry_.Manifest("team/a", Tag("kid")));
  const Json table = Json::parse(*registry_.Blob("team/a", manifest["config"]["digest"]));
  manifest["layers"][1]["digest"] = table["chunks"][0]["digest"];
  manifest["layers"][1]["size"] = table["chunks"][0]["size"];
  index["manifests"][0]["digest"] = registry_.AddManifest(
      "team/a", Tag("kid"), std::string(registry::kManifestMediaType), manifest.dump());
  index["manifests"][0]["size"] = manifest.dump().size();
  registry_.AddManifest("team/a", "kid", std::string(registry::kIndexMediaType), index.dump());
  Snapshot::Pull(ctx_, At("team/a:kid"), "", {.name = "kid"}, there);
  ExpectPulls(Snapshot::Push(ctx_, "kid", At("team/b"), {}, there), "kid");
}

TEST_F(PushObstaclesTest, PushesAgainIfTagsCannotMove) {
  registry_.On("PUT", "/v2/team/a/manifests/*", [&](const ScriptedRequest& request) {
    const std::string target = request.path.substr(request.path.rfind('/') + 1);
    const bool refuses = !target.starts_with("sha256:") && registry_.Manifest("team/a", target);
    return refuses ? std::optional(Refusal(400, "TAG_INVALID")) : std::nullopt;
  });
  const std::string first = Push("kid", "team/a:v1", {.with_parents = true, .with_image = true});
  EXPECT_EQ(Push("kid", "team/a:v1", {.with_parents = true, .with_image = true}), first);
  ExpectPulls(Push("kid", "team/a:v2", {.with_image = true}), "kid");
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_MSB_ERROR(Push("web", "team/a:v1"), ErrorKind::kRegistryUnavailable, "manifest 'v1'",
                   "TAG_INVALID");
}

TEST_F(PushObstaclesTest, StoresAManifestWithoutItsTagIfThatIsRefused) {
  registry_.Answer("PUT", "/v2/team/a/manifests/snapshot-*", Refusal(409, "TAG_INVALID"));
  ExpectPulls(Push("web", "team/a"), "web");
  EXPECT_THAT(log_, ElementsAre(testing::AllOf(HasSubstr("manifest 'snapshot-"), HasSubstr("409"),
                                               HasSubstr("stored without this tag"))));
}

TEST_F(PushObstaclesTest, TagsEachManifest) {
  const std::string pushed = Push("kid", "team/a", {.with_parents = true, .with_image = true});
  const Json index = Json::parse(*registry_.Manifest("team/a", "latest"));
  ASSERT_EQ(index["manifests"].size(), 3U);
  std::vector<std::string> tags = {
      "snapshot-" + Snapshot::Get(ctx_, "kid", here_).Digest().substr(7),
      "snapshot-" + Snapshot::Get(ctx_, "web", here_).Digest().substr(7)};
  tags.push_back("image-" + index["manifests"][2]["digest"].get<std::string>().substr(7));
  for (std::size_t i = 0; i < tags.size(); ++i) {
    const auto manifest = registry_.Manifest("team/a", tags[i]);
    ASSERT_TRUE(manifest) << tags[i];
    EXPECT_EQ(base::Sha256Digest(*manifest), index["manifests"][i]["digest"].get<std::string>())
        << tags[i];
  }
}

TEST_F(PushObstaclesTest, RefusesReservedTags) {
  const std::string hex(64, 'a');
  for (const std::string& tag : {"snapshot-" + hex, "image-" + hex}) {
    EXPECT_MSB_ERROR(Push("web", "team/a:" + tag), ErrorKind::kInvalidArgument, tag,
                     "choose another tag");
  }
  EXPECT_THAT(registry_.Requests(), IsEmpty());
  Push("web", "team/a:snapshot-1");
}

TEST_F(PushObstaclesTest, SendsIdenticalChunksOnce) {
  std::vector<std::pair<std::uint64_t, std::string>> data;
  for (std::uint64_t i = 0; i < 8; ++i) data.emplace_back(i * kStep, Noise(5000, 7));
  MakeSparseFile(dir_ / "same", 8 * kStep, data);
  MakeStoppedSandbox(here_, "same", dir_ / "same");
  Snapshot::Create(ctx_, "same", {.name = "same", .record_integrity = true}, here_);
  const std::string pushed = Push("same", "team/a");
  // The chunk, the table and the artifact's manifest.
  EXPECT_EQ(Sent("team/a"), 3U);
  ExpectPulls(pushed, "same");
}

TEST_F(PushObstaclesTest, AsksToPushAgainIfBlobsAreRemovedDuringAPush) {
  registry_.Answer("PUT", "/v2/team/a/manifests/*", Refusal(404, "MANIFEST_BLOB_UNKNOWN"), 1);
  EXPECT_MSB_ERROR(Push("web", "team/a"), ErrorKind::kRegistryUnavailable, "team/a",
                   "removed from the registry during the push", "push the snapshot again");
  ExpectPulls(Push("web", "team/a"), "web");
}

}  // namespace
}  // namespace msb::test
