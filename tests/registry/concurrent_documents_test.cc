// SPDX-License-Identifier: Apache-2.0
//
// Tests that Pull requests the documents of many snapshots at the same time: with a distant
// registry, a chain would otherwise take several round trips for each snapshot.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/registry/documents.h"
#include "tests/support/event.h"
#include "tests/support/scripted_registry.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSnapshots = 5;

class ConcurrentDocumentsTest : public ::testing::Test {
 protected:
  ConcurrentDocumentsTest() {
    MakeSparseFile(dir_ / "disk", 1 << 20, {{0, Noise(64 << 10, 1)}});
    MakeStoppedSandbox(sender_, "vm0", dir_ / "disk");
    for (int n = 0; n < kSnapshots; ++n) {
      const std::string sandbox = fmt::format("vm{}", n);
      const std::string snapshot = fmt::format("s{}", n);
      if (n > 0)
        CreateSandbox(ctx_, sandbox, {WithSnapshot(fmt::format("s{}", n - 1))}, sender_).Close();
      PatchFile(GetSandbox(ctx_, sandbox, sender_).Upper().path, 4096, snapshot);
      head_ = Snapshot::Create(ctx_, sandbox, {.name = snapshot}, sender_).Digest();
    }
    Snapshot::Push(ctx_, fmt::format("s{}", kSnapshots - 1), Reference(), {.with_parents = true},
                   sender_);
    const Json index = Json::parse(*registry_.Manifest("chain", "latest"));
    for (const Json& entry : index["manifests"]) {
      manifests_.push_back(entry["digest"]);
      const Json manifest = Json::parse(*registry_.Manifest("chain", manifests_.back()));
      artifact_manifests_.push_back(manifest["layers"][0]["digest"]);
      tables_.push_back(manifest["config"]["digest"]);
    }
  }

  std::string Reference() const { return registry_.host() + "/chain"; }

  // Answers no request for these objects of the registry until there is one for each.
  void AnswerTogether(const std::string& kind, const std::vector<std::string>& digests) {
    const auto all = std::make_shared<Event>();
    const auto missing = std::make_shared<std::atomic<std::size_t>>(digests.size());
    for (const std::string& digest : digests) {
      ScriptedAnswer answer{.after = all};
      if (kind == "manifests") {
        answer.headers = {{"Content-Type", std::string(registry::kManifestMediaType)}};
        answer.body = *registry_.Manifest("chain", digest);
      } else {
        answer.body = *registry_.Blob("chain", digest);
      }
      registry_.On("GET", fmt::format("/v2/chain/{}/{}", kind, digest),
                   [=](const ScriptedRequest&) {
                     if (--*missing == 0) all->Set();
                     return answer;
                   });
    }
  }

  void ExpectPulled() {
    EXPECT_EQ(Snapshot::Pull(ctx_, Reference(), "", {}, receiver_).Digest(), head_);
    EXPECT_EQ(Snapshot::ListDir(ctx_, "", receiver_).size(), std::size_t{kSnapshots});
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  ScriptedRegistry registry_;
  Client sender_ = LocalClient(dir_ / "sender");
  Client receiver_ = LocalClient(dir_ / "receiver");
  std::string head_;
  // The digests of the documents, those of the head first.
  std::vector<std::string> manifests_;
  std::vector<std::string> artifact_manifests_;
  std::vector<std::string> tables_;
};

TEST_F(ConcurrentDocumentsTest, Manifests) {
  // The head comes first, because its parents need not be pulled if it is present.
  AnswerTogether("manifests", {manifests_.begin() + 1, manifests_.end()});
  AnswerTogether("blobs", {artifact_manifests_.begin() + 1, artifact_manifests_.end()});
  ExpectPulled();
}

TEST_F(ConcurrentDocumentsTest, ChunkTables) {
  AnswerTogether("blobs", tables_);
  ExpectPulled();
}

TEST_F(ConcurrentDocumentsTest, OneConnectionIsEnough) {
  const SnapshotPullOptions one = {.registry = {.connections = 1}};
  EXPECT_EQ(Snapshot::Pull(ctx_, Reference(), "", one, receiver_).Digest(), head_);
}

}  // namespace
}  // namespace msb::test
