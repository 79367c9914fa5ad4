// SPDX-License-Identifier: Apache-2.0
//
// Push sends only what the registry does not have, and Pull gets only what the machine does not
// have. Blobs are counted at the server, and bytes by a proxy.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/registry/registry_home.h"

namespace msb::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// The most bytes of the requests, answers and documents of a call that moves few chunks.
constexpr std::uint64_t kOverhead = 64 << 10;

// What a push added to the registry.
struct Sent {
  RegistryStorage::Sizes chunks;  // The blobs that the pushed manifests list as chunks.
  RegistryStorage::Sizes others;  // Manifests, the index, chunk tables.

  std::string Text() const {
    return fmt::format("{} chunks of {} bytes, {} other blobs of {} bytes", chunks.size(),
                       TotalOf(chunks), others.size(), TotalOf(others));
  }
};

class DedupTest : public RegistryTest {
 protected:
  // Pushes, and returns what was added.
  Sent Push(const std::string& snapshot, const std::string& target, const Client& client,
            const SnapshotPushOptions& options = {}) {
    const auto before = storage().Blobs();
    const std::string reference = Snapshot::Push(ctx_, snapshot, At(target), options, client);
    const std::set<std::string> chunks = Chunks(reference.substr(reference.find('@') + 1));
    Sent sent;
    for (const auto& [digest, size] : Added(before, storage().Blobs())) {
      (chunks.contains(digest) ? sent.chunks : sent.others).emplace(digest, size);
    }
    EXPECT_EQ(storage().Missing(), "");
    return sent;
  }

  // Returns the digests of the chunks that an index leads to.
  std::set<std::string> Chunks(const std::string& index) {
    std::set<std::string> chunks;
    const json document = json::parse(storage().Read(index));
    for (const auto& entry : document.at("manifests")) {
      const json manifest = json::parse(storage().Read(entry.at("digest")));
      for (const auto& layer : manifest.at("layers")) {
        if (layer.at("mediaType").get<std::string>().find("chunk") != std::string::npos) {
          chunks.insert(layer.at("digest"));
        }
      }
    }
    return chunks;
  }

  Client here_ = Home("here");
};

TEST_F(DedupTest, PushingAgainSendsNoBlob) {
  MakeRaw(here_, "web", 20 << 20, {{0, Noise(1 << 20, 1)}, {9 << 20, Noise(1 << 20, 2)}});
  const Sent first = Push("web", "web:v1", here_);
  EXPECT_EQ(first.chunks.size(), 2U) << first.Text();
  // The artifact's manifest, the chunk table, the OCI manifest and the index.
  EXPECT_EQ(first.others.size(), 4U) << first.Text();
  const std::size_t requests = registry().Requests().size();
  for (const char* target : {"web:v1", "web:v2"}) {
    const Sent again = Push("web", target, here_);
    EXPECT_EQ(again.chunks.size() + again.others.size(), 0U) << target << again.Text();
  }
  for (const std::string& request : registry().Requests(requests)) {
    EXPECT_THAT(request, testing::Not(testing::StartsWith("POST")));
  }
}

TEST_F(DedupTest, AChildSendsOnlyItsOwnLayer) {
  Client client = Qcow2Home("chain");
  const auto chain = MakeChain(client, 3);
  Push("s2", "chain:2", client);
  const Sent sent = Push("s3", "chain:3", client);
  EXPECT_EQ(sent.chunks.size(), 1U) << sent.Text();
  EXPECT_EQ(sent.others.size(), 4U) << sent.Text();
  // The layer has 64 KiB of one byte, and the metadata of qcow2.
  EXPECT_LT(TotalOf(sent.chunks), 4096U);
}

TEST_F(DedupTest, AnotherHomeSendsOnlyTheChildOfWhatItPulled) {
  Client client = Qcow2Home("chain");
  MakeChain(client, 2);
  Push("s2", "chain:2", client, {.with_image = true});
  Client other = Qcow2Home("other");
  const auto head = Snapshot::Pull(ctx_, At("chain:2"), "", {}, other);
  CreateSandbox(ctx_, "next", {WithSnapshot(head.Path())}, other).Close();
  Snapshot::Create(ctx_, "next", {.name = "s3"}, other);
  const Sent sent = Push("s3", "chain:3", other, {.with_image = true});
  EXPECT_EQ(sent.chunks.size(), 1U) << sent.Text();
  // Homes write the same manifests for the parents.
  EXPECT_EQ(sent.others.size(), 4U) << sent.Text();
}

// A raw disk of 8 GiB with 96 MiB of data, of which 10 MiB change in five places.
class LargeDiskTest : public DedupTest {
 protected:
  static constexpr std::uint64_t kSize = 8ULL << 30;
  static constexpr std::uint64_t kStride = 1ULL << 30;  // Between two pieces of data.
  static constexpr std::uint64_t kPiece = 12 << 20;
  static constexpr std::uint64_t kChange = 2 << 20;

  void SetUp() override {
    DedupTest::SetUp();
    if (IsSkipped()) return;
    // The image is small, since its digest covers the holes as well.
    MakeRaw(here_, "base", 1 << 20, {});
    Snapshot::Remove(ctx_, "base", false, here_);
    const std::filesystem::path upper = GetSandbox(ctx_, "base", here_).Upper().path;
    std::filesystem::resize_file(upper, kSize);
    for (std::uint64_t i = 0; i < kSize / kStride; ++i) {
      PatchFile(upper, i * kStride, FastNoise(kPiece, i));
    }
    Snapshot::Create(ctx_, "base", {.name = "base", .record_integrity = true}, here_);
  }

  // Makes "child", in which five places at this offset in a piece are changed.
  SnapshotArtifact Change(std::uint64_t offset) {
    std::vector<std::pair<std::uint64_t, std::string>> changes;
    for (std::uint64_t i = 0; i < 5; ++i) {
      changes.emplace_back(i * kStride + offset, FastNoise(kChange, 100 + i));
    }
    return MakeRawChild(here_, "base", "child", changes);
  }
};

TEST_F(LargeDiskTest, SendsAndGetsOnlyTheChangedChunks) {
  const auto child = Change(0);
  const Sent all = Push("base", "disk:base", here_);
  EXPECT_EQ(all.chunks.size(), 16U) << all.Text();
  // Whatever the level, the chunks are known by their content.
  const Sent sent = Push("child", "disk:child", here_, {.level = 9});
  EXPECT_EQ(sent.chunks.size(), 5U) << sent.Text();
  EXPECT_LE(TotalOf(sent.chunks), 5 * (kChunkBytes + 4096));

  Client there = Home("there");
  Snapshot::Pull(ctx_, At("disk:base"), "", {}, there);
  TcpProxy proxy(registry().port());
  std::uint64_t saved = 0;
  const Context ctx = ctx_.WithProgress([&](const Progress& p) { saved = p.bytes_saved; });
  const auto pulled =
      Snapshot::Pull(ctx, proxy.address() + "/disk:child", "", {}, there).Open(ctx_);
  EXPECT_LE(proxy.total(), TotalOf(sent.chunks) + kOverhead);
  EXPECT_EQ(saved, TotalOf(all.chunks) - TotalOf(sent.chunks));
  ExpectSame(child, pulled);
}

// A change that crosses the border of two chunks costs both.
TEST_F(LargeDiskTest, SendsTheChunksThatAChangeTouches) {
  Change(kChunkBytes - kChange / 2);
  Push("base", "disk:base", here_);
  const Sent sent = Push("child", "disk:child", here_);
  EXPECT_EQ(sent.chunks.size(), 10U) << sent.Text();
}

TEST_F(DedupTest, ReusesWhatTheTagNamedBefore) {
  MakeRaw(here_, "base", 32 << 20, {{0, FastNoise(30 << 20, 1)}});
  Push("base", "disk:stable", here_);
  // Another home with a similar disk, whose snapshots are not related.
  Client other = Home("other");
  std::string data = FastNoise(30 << 20, 1);
  data[10 << 20] ^= 1;
  MakeRaw(other, "similar", 32 << 20, {{0, data}});
  const Sent sent = Push("similar", "disk:stable", other, {.level = 1});
  EXPECT_EQ(sent.chunks.size(), 1U) << sent.Text();
}

TEST_F(DedupTest, MountsChunksOfAnotherRepository) {
  MakeRaw(here_, "base", 32 << 20, {{0, FastNoise(30 << 20, 1)}});
  MakeRawChild(here_, "base", "child", {{9 << 20, Noise(4096, 2)}});
  Push("base", "team/base:v1", here_);
  const std::size_t requests = registry().Requests().size();
  // At another level the same chunks would be other blobs.
  const Sent sent = Push("child", "team/child:v1", here_, {.level = 7});
  EXPECT_EQ(sent.chunks.size(), 1U) << sent.Text();
  int mounted = 0;
  for (const std::string& request : registry().Requests(requests)) {
    if (request.find("from=team") == std::string::npos) continue;
    EXPECT_THAT(request, testing::AllOf(HasSubstr("POST /v2/team/child/blobs/uploads/?"),
                                        HasSubstr("mount=sha256"), testing::EndsWith(" 201")));
    ++mounted;
  }
  EXPECT_EQ(mounted, 3);
  Client there = Home("there");
  Snapshot::Pull(ctx_, At("team/child:v1"), "", {}, there);
}

// A raw snapshot has most chunks of its image.
TEST_F(DedupTest, GetsAChunkOfAnImageAndItsDiskOnce) {
  MakeRaw(here_, "base", 32 << 20, {{0, FastNoise(30 << 20, 1)}});
  MakeRawChild(here_, "base", "child", {{9 << 20, Noise(4096, 2)}});
  const Sent sent = Push("child", "web", here_, {.with_parents = true, .with_image = true});
  EXPECT_EQ(sent.chunks.size(), 5U) << sent.Text();
  Client there = Home("there");
  TcpProxy proxy(registry().port());
  Snapshot::Pull(ctx_, proxy.address() + "/web", "", {}, there);
  EXPECT_LE(proxy.received(), TotalOf(sent.chunks) + kOverhead);
  // The content of a disk image is that of its name.
  const auto images = ListTree(dir_ / "there/cache/disks");
  ASSERT_EQ(images.size(), 1U);
  EXPECT_EQ(images.begin()->first, "sha256_" + images.begin()->second.substr(7) + ".raw");
}

// The table of the parent promises a chunk that the registry has lost.
TEST_F(DedupTest, RepairsARegistryThatLostAChunk) {
  MakeRaw(here_, "base", 16 << 20, {{0, FastNoise(16 << 20, 1)}});
  const Sent first = Push("base", "disk:v1", here_);
  ASSERT_EQ(first.chunks.size(), 2U) << first.Text();
  storage().Remove(first.chunks.begin()->first);
  EXPECT_MSB_ERROR(Snapshot::Pull(ctx_, At("disk:v1"), dir_ / "elsewhere", {}, here_),
                   ErrorKind::kSnapshotIntegrity, first.chunks.begin()->first, "push");
  const auto pulled_after = [&] {
    Snapshot::Push(ctx_, "base", At("disk:v1"), {}, here_);
    return storage().Missing();
  };
  EXPECT_EQ(pulled_after(), "");
}

// docker-registry keeps the file that it has under a digest, so a push cannot repair it.
TEST_F(DedupTest, ReportsAChunkThatTheRegistryKeepsTruncated) {
  MakeRaw(here_, "base", 16 << 20, {{0, FastNoise(16 << 20, 1)}});
  const Sent first = Push("base", "disk:v1", here_);
  const auto& [digest, size] = *first.chunks.begin();
  storage().Truncate(digest, size / 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_MSB_ERROR(Snapshot::Push(ctx_, "base", At("disk:v2"), {}, here_),
                     ErrorKind::kSnapshotIntegrity, digest, std::to_string(size / 2), "disk",
                     "remove the blob from the storage of the registry", "push the snapshot again");
  }
  storage().Remove(digest);
  Push("base", "disk:v2", here_);
}

TEST_F(DedupTest, AGarbageCollectionKeepsWhatWasPushed) {
  Client client = Qcow2Home("chain");
  MakeChain(client, 2);
  Push("s2", "team/a:2", client, {.with_image = true});
  registry().CollectGarbage();
  EXPECT_EQ(storage().Missing(), "");
  Client there = Qcow2Home("there");
  Snapshot::Pull(ctx_, At("team/a:2"), "", {}, there);
}

TEST_F(DedupTest, SendsAnImageOnceForAllLevelsAndRepositories) {
  Client client = Qcow2Home("chain");
  MakeChain(client, 2);
  Push("s1", "team/a:1", client, {.with_image = true});
  const Sent level = Push("s2", "team/a:2", client, {.with_image = true, .level = 9});
  EXPECT_EQ(level.chunks.size(), 1U) << level.Text();
  const Sent repository = Push("s2", "team/b:2", client, {.with_image = true, .level = 19});
  EXPECT_EQ(repository.chunks.size(), 0U) << repository.Text();
}

// The table of the parent promises more than the registry may be asked for at once.
TEST_F(DedupTest, RepairsARegistryThatLostManyChunks) {
  constexpr std::uint32_t kChunks = 300;
  std::vector<std::pair<std::uint64_t, std::string>> data;
  for (std::uint32_t i = 0; i < kChunks; ++i) {
    data.emplace_back(std::uint64_t{i} << 23, Noise(4096, 1 + i));
  }
  MakeRaw(here_, "base", std::uint64_t{kChunks} << 23, data);
  const Sent first = Push("base", "disk:v1", here_);
  ASSERT_EQ(first.chunks.size(), std::size_t{kChunks});
  for (const auto& [digest, size] : first.chunks) storage().Remove(digest);
  Snapshot::Push(ctx_, "base", At("disk:v1"), {}, here_);
  EXPECT_EQ(storage().Missing(), "");
}

}  // namespace
}  // namespace msb::test
