// SPDX-License-Identifier: Apache-2.0
//
// Valid archives of every layout, however they arrive. This also shows that the samples are valid
// that the hostile archives are made from.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/fed_pipe.h"
#include "tests/support/import_home.h"
#include "tests/support/zstd_frame.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

class ImportTest : public ImportHome {
 protected:
  SnapshotHandle ImportFromPipe(const std::string& archive) {
    const FedPipe pipe([&archive](const FedPipe::Write& write) { write(archive); });
    return Snapshot::Import(ctx_, pipe.path(), "", client_);
  }

  // Starts a new home, because the same snapshot is imported again and again.
  void StartAgain() {
    fs::remove_all(home_);
    client_ = LocalClient(home_, &log_);
  }
};

TEST_F(ImportTest, EveryLayoutPlainAndCompressedFromFilesAndPipes) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const bool sparse : {false, true}) {
      const SampleArchive sample = MakeSampleArchive(layout, {.sparse = sparse});
      SCOPED_TRACE(sample.entries[0].name + (sparse ? " sparse" : " dense"));
      const std::string tar = sample.Tar();
      for (const std::string& archive : {tar, Compress(tar), StoredFrame({{.bytes = tar}})}) {
        StartAgain();
        ExpectSound(Import(archive), sample.snapshots[0]);
      }
      for (const std::string& archive : {tar, Compress(tar)}) {
        StartAgain();
        ExpectSound(ImportFromPipe(archive), sample.snapshots[0]);
      }
    }
  }
}

TEST_F(ImportTest, EveryIntegrityAlgorithm) {
  for (const std::string algorithm :
       {"", "sha256", "msb-sparse-sha256-v1", "msb-file-merkle-blake3-v1"}) {
    for (const SampleLayout layout : kSampleLayouts) {
      // The manifest generation has no Merkle trees.
      if (layout == SampleLayout::kLegacy && algorithm.starts_with("msb-file")) continue;
      const SampleArchive sample = MakeSampleArchive(layout, {.algorithm = algorithm});
      SCOPED_TRACE(sample.entries[0].name + " " + algorithm);
      StartAgain();
      ExpectSound(Import(sample.Tar()), sample.snapshots[0]);
    }
  }
}

TEST_F(ImportTest, ImportsACompleteChainAndReturnsItsHead) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive sample = MakeSampleChain(layout);
    SCOPED_TRACE(sample.entries[0].name);
    StartAgain();
    ExpectSound(Import(Compress(sample.Tar())), sample.snapshots[1]);
    ExpectSound(Snapshot::Get(ctx_, sample.snapshots[0].digest, client_), sample.snapshots[0]);
    EXPECT_EQ(Snapshot::List(ctx_, client_).size(), 2U);
  }
}

TEST_F(ImportTest, AParentThatIsElsewhereIsNoError) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive chain = MakeSampleChain(layout);
    const SampleArchive sample = MakeSampleArchive({chain.snapshots[1]});
    SCOPED_TRACE(sample.entries[0].name);
    StartAgain();
    ExpectSound(Import(sample.Tar()), sample.snapshots[0]);
  }
}

TEST_F(ImportTest, AnImageComesIntoTheCacheAndItsVmdkNamesThisCache) {
  const SampleImage image = MakeSampleImage();
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleArchive sample = MakeSampleWithImage(layout);
    SCOPED_TRACE(sample.entries[0].name);
    StartAgain();
    ExpectSound(Import(sample.Tar()), sample.snapshots[0]);
    for (const auto& [file, content] : image.files) {
      const std::string installed = ReadFile(home_ / "cache" / file);
      if (!file.starts_with("vmdk/")) {
        EXPECT_TRUE(installed == content) << file;
        continue;
      }
      EXPECT_EQ(installed.find("/srv/elsewhere"), std::string::npos) << installed;
      EXPECT_NE(installed.find((home_ / "cache/fsmeta").native()), std::string::npos) << installed;
    }
  }
}

TEST_F(ImportTest, AnImageThatIsAlreadyThereStays) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    StartAgain();
    Import(MakeSampleWithImage(layout).Tar());
    const auto cache = ListTree(home_ / "cache");
    const SampleArchive again =
        MakeSampleArchive({MakeSampleSnapshot(layout, {.seed = 2})}, {MakeSampleImage()});
    ExpectSound(Import(again.Tar()), again.snapshots[0]);
    EXPECT_EQ(ListTree(home_ / "cache"), cache);
  }
}

TEST_F(ImportTest, AnExplicitDestination) {
  const SampleArchive sample = MakeSampleChain(SampleLayout::kInventory);
  const auto before = ListTree(home_ / "snapshots");
  const SnapshotHandle handle = Import(sample.Tar(), dest_);
  ExpectSound(handle, sample.snapshots[1]);
  EXPECT_EQ(fs::path(handle.Path()).parent_path(), dest_);
  EXPECT_EQ(Snapshot::ListDir(ctx_, dest_, client_).size(), 2U);
  EXPECT_EQ(ReadFile(dest_ / "mine"), "not a snapshot");
  EXPECT_EQ(ListTree(home_ / "snapshots"), before);
}

// Releases 0.6.7 to 0.6.13 recorded no hashes of members.
TEST_F(ImportTest, AnInventoryWithoutTransportIntegrity) {
  const SampleArchive sample =
      MakeSampleArchive(SampleLayout::kInventory, {.algorithm = "msb-sparse-sha256-v1"});
  Json inventory = sample.Inventory();
  inventory["requires"] = Json::array();
  for (Json& entry : inventory["entries"]) entry.erase("transport_integrity");
  ExpectSound(Import(sample.TarWith(inventory)), sample.snapshots[0]);
}

TEST_F(ImportTest, AcceptsAnyValueOfUncheckedInventoryFields) {
  const SampleArchive sample = MakeSampleArchive(SampleLayout::kInventory);
  for (const Json& name : {Json(), Json("another")}) {
    SCOPED_TRACE(name.dump());
    StartAgain();
    Json inventory = sample.Inventory();
    inventory["suggested_name"] = name;
    inventory["extensions"] = {{"x.y", {{"deep", {1, 2, 3}}}}};
    ExpectSound(Import(sample.TarWith(inventory)), sample.snapshots[0]);
  }
}

// A map with one range, which fills the file.
TEST_F(ImportTest, SparseEntriesWithoutAHole) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive sample = MakeSampleArchive(layout, {.sparse = false});
    SCOPED_TRACE(sample.entries[0].name);
    StartAgain();
    MakeSparse(sample.entries.back(), {{0, sample.snapshots[0].upper.size()}});
    ExpectSound(Import(sample.Tar()), sample.snapshots[0]);
  }
}

TEST_F(ImportTest, AHugeHoleCostsNothing) {
  static constexpr std::uint64_t kSize = std::uint64_t{4} << 30;
  const auto set_size = [](Json& manifest) { manifest["state"]["upper"]["size_bytes"] = kSize; };
  SampleArchive sample =
      MakeSampleArchive(SampleLayout::kInventory, {.algorithm = "", .edit = set_size});
  TarEntry& upper = sample.Entry("upper.ext4");
  upper.apparent_size = kSize;
  upper.ranges.back().offset = kSize;
  const SnapshotArtifact artifact = Import(sample.Tar()).Open(ctx_);
  EXPECT_EQ(artifact.SizeBytes(), kSize);
  EXPECT_EQ(ExtentsOf(UpperIn(artifact.Path())), SampleExtents());
}

}  // namespace
}  // namespace msb::test
