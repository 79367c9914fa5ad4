// SPDX-License-Identifier: Apache-2.0
//
// Tests the functions of RegistryClient that Push uses: they put manifests and blobs, and read
// hints.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "src/registry/registry_client.h"
#include "tests/unit/registry/registry_fixture.h"

namespace msb::registry {
namespace {

using test::ScriptedRequest;

class RegistryPutTest : public RegistryFixture {};

TEST_F(RegistryPutTest, PutsAManifest) {
  RegistryClient client = MakeClient();
  client.PutManifest(kRepository, "v1", {.media_type = kManifestType, .digest = "", .bytes = "{}"});
  EXPECT_EQ(registry_.Manifest(kRepository, "v1"), "{}");
  EXPECT_EQ(registry_.Requests().back().Header("content-type"), kManifestType);
}

TEST_F(RegistryPutTest, ReportsWhyAManifestIsRefused) {
  registry_.Answer("PUT", "*", {.status = 400, .body = R"({"errors":[{"code":"MANIFEST_INVALID",
                                "message":"layer\u0000unknown"},{"message":"second"}]})"});
  RegistryClient client = MakeClient();
  ExpectError([&] { client.PutManifest(kRepository, "v1", {}); }, ErrorKind::kRegistryUnavailable,
              {"PUT of manifest 'v1'", "400", "'MANIFEST_INVALID: layer\\x00unknown; second'"});
}

TEST_F(RegistryPutTest, ReportsARefusedTag) {
  registry_.Answer("PUT", "*", {.status = 409, .body = R"({"errors":[{"code":"TAG_INVALID",
                                "message":"immutable"}]})"});
  RegistryClient client = MakeClient();
  const auto refusal = client.TryPutManifest(kRepository, "v1", {});
  ASSERT_TRUE(refusal);
  EXPECT_TRUE(test::Names(*refusal, {"manifest 'v1'", kRepository, "409", "immutable"}));
}

TEST_F(RegistryPutTest, ReportsBlobsThatWereRemovedDuringAPush) {
  RegistryClient client = MakeClient();
  for (const int status : {400, 404}) {
    registry_.Answer("PUT", "*", {.status = status, .body = R"({"errors":[
                                  {"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]})"});
    for (const auto& put :
         {std::function<void()>([&] { client.PutManifest(kRepository, "v1", {}); }),
          std::function<void()>([&] { client.TryPutManifest(kRepository, "v1", {}); })}) {
      ExpectError(put, ErrorKind::kRegistryUnavailable,
                  {"PUT of manifest 'v1'", "removed from the registry during the push",
                   "push the snapshot again"});
    }
  }
}

TEST_F(RegistryPutTest, ReportsARegistryThatChangesManifests) {
  const std::string other = base::Sha256Digest("other");
  registry_.Answer("PUT", "*", {.status = 201, .headers = {{"Docker-Content-Digest", other}}});
  RegistryClient client = MakeClient();
  ExpectError(
      [&] {
        client.PutManifest(kRepository, "v1", {"type", base::Sha256Digest("{}"), "{}"});
      },
      ErrorKind::kSnapshotIntegrity, {other, base::Sha256Digest("{}"), "do not change manifests"});
}

TEST_F(RegistryPutTest, FindsTheDigestOfATag) {
  const std::string digest = registry_.AddManifest(kRepository, "v1", kManifestType, "{}");
  RegistryClient client = MakeClient();
  EXPECT_EQ(client.FindDigest(kRepository, "v1"), digest);
  EXPECT_EQ(client.FindDigest(kRepository, "v2"), std::nullopt);
  registry_.Answer("HEAD", "*", {.status = 403});
  EXPECT_EQ(client.FindDigest(kRepository, "v1"), std::nullopt);
}

TEST_F(RegistryPutTest, NamesTheRepositoryThatCannotBePushedTo) {
  registry_.Answer("POST", "*", {.status = 404});
  RegistryClient client = MakeClient();
  ExpectError([&] { Put(client, BlobOf("x")); }, ErrorKind::kSnapshotNotFound,
              {"POST of an upload", "404", "create it"});
}

TEST_F(RegistryPutTest, SendsABlobOnce) {
  const std::string bytes = test::Noise(300000, 1);
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf(bytes)), PutResult::kSent);
  EXPECT_EQ(registry_.Blob(kRepository, DescriptorOf(bytes).digest), bytes);
  EXPECT_EQ(Put(client, BlobOf(bytes)), PutResult::kExisted);
  EXPECT_EQ(registry_.Requests("PUT", "*").size(), 1U);
  EXPECT_EQ(Put(client, BlobOf("")), PutResult::kSent);
}

TEST_F(RegistryPutTest, ReplacesABlobThatHasAnotherSize) {
  registry_.Answer("HEAD", "*", {.body = "short"}, 1);
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("complete", "other")), PutResult::kSent);
  EXPECT_EQ(registry_.Blob(kRepository, DescriptorOf("complete").digest), "complete");
  registry_.Answer("HEAD", "*", {.body = "short"}, 1);
  NewBlob unread = BlobOf("complete", "other");
  unread.bytes = nullptr;
  EXPECT_EQ(Put(client, unread), PutResult::kAbsent);
}

TEST_F(RegistryPutTest, ReportsADamagedBlobThatTheRegistryDoesNotReplace) {
  registry_.Answer("HEAD", "*", {.body = "short"});
  RegistryClient client = MakeClient();
  const NewBlob blob = BlobOf("complete");
  ExpectError([&] { Put(client, blob); }, ErrorKind::kSnapshotIntegrity,
              {blob.descriptor.digest, "found 5 bytes, expected 8", "remove the blob"});
  EXPECT_EQ(registry_.Requests("PUT", "*").size(), 1U);
}

TEST_F(RegistryPutTest, SendsABlobIfItIsUnknownWhetherItExists) {
  test::ScriptedRegistry storage;
  storage.Answer("HEAD", "*", {.status = 403, .body = "SignatureDoesNotMatch"});
  registry_.Answer("HEAD", "*", {.status = 307, .headers = {{"Location", storage.url() + "/x"}}});
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("redirected")), PutResult::kSent);
  for (const int status : {400, 403, 405}) {
    registry_.Answer("HEAD", "*", {.status = status});
    EXPECT_EQ(Put(client, BlobOf(std::to_string(status))), PutResult::kSent);
  }
}

TEST_F(RegistryPutTest, MountsABlobOfAnotherRepository) {
  const std::string digest = registry_.AddBlob("other", "bytes");
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("bytes", "other")), PutResult::kMounted);
  EXPECT_EQ(registry_.Blob(kRepository, digest), "bytes");
  EXPECT_TRUE(registry_.Requests("PUT", "*").empty());
}

TEST_F(RegistryPutTest, SendsABlobThatCannotBeMounted) {
  RegistryClient client = MakeClient();
  EXPECT_EQ(Put(client, BlobOf("one", "other")), PutResult::kSent) << "the blob is not there";
  for (const int status : {400, 401, 403, 404, 405, 500, 501, 502}) {
    registry_.On("POST", "*", [status](const ScriptedRequest& request) {
      const bool mount = request.query.find("mount=") != std::string::npos;
      return mount ? std::optional(Status(status)) : std::nullopt;
    });
    const std::string text = std::to_string(status);
    EXPECT_EQ(Put(client, BlobOf("two" + text, "other" + text)), PutResult::kSent);
  }
}

TEST_F(RegistryPutTest, StopsMountingFromARepositoryIfThatNeverWorks) {
  RegistryClient client = MakeClient();
  for (int i = 0; i < 10; ++i) Put(client, BlobOf("absent" + std::to_string(i), "other"));
  const auto mounts = [&] {
    const auto posts = registry_.Requests("POST", "*");
    return std::ranges::count_if(posts, [](const ScriptedRequest& request) {
      return request.query.find("mount=") != std::string::npos;
    });
  };
  EXPECT_EQ(mounts(), 4);
  EXPECT_EQ(registry_.Requests("POST", "*").size(), 10U);
  registry_.AddBlob("third", "bytes");
  EXPECT_EQ(Put(client, BlobOf("bytes", "third")), PutResult::kMounted);
}

TEST_F(RegistryPutTest, RepeatsAHintAtMostOnce) {
  registry_.Answer("GET", "*", Status(503));
  RegistryClient client = MakeClient();
  const Reading hint{.is_hint = true};
  ExpectError([&] { client.GetManifest(kRepository, "v1", 100, hint); },
              ErrorKind::kRegistryUnavailable, {"503"});
  EXPECT_EQ(registry_.Requests("GET", "*").size(), 2U);
  client.Recover();
  ExpectError([&] { client.GetSmallBlob(kRepository, DescriptorOf("x"), hint); },
              ErrorKind::kRegistryUnavailable, {"503"});
  EXPECT_EQ(registry_.Requests("GET", "*").size(), 4U);
}

TEST_F(RegistryPutTest, WorksAfterRecover) {
  registry_.AddBlob(kRepository, "bytes");
  RegistryClient client = MakeClient({.connections = 1});
  std::uint64_t traffic = 0;
  client.OnTraffic([&](std::uint64_t more) { traffic += more; });
  EXPECT_THROW(client.GetSmallBlob(kRepository, DescriptorOf("absent")), Error);
  client.Recover();
  traffic = 0;
  EXPECT_EQ(client.GetSmallBlob(kRepository, DescriptorOf("bytes")), "bytes");
  EXPECT_EQ(traffic, 5U);
}

}  // namespace
}  // namespace msb::registry
