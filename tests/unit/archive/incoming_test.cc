// SPDX-License-Identifier: Apache-2.0

#include "src/archive/incoming.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/archive_sample.h"
#include "tests/support/support.h"

namespace msb::archive {
namespace {

using test::kSampleLayouts;
using test::MakeSampleSnapshot;
using test::SampleLayout;
using test::SampleSnapshot;
using testing::ElementsAre;

Layout LayoutOf(const SampleSnapshot& sample) {
  switch (sample.layout) {
    case SampleLayout::kLegacy:
      return Layout::kLegacy;
    case SampleLayout::kInventory:
      return Layout::kInventory;
    case SampleLayout::kLayered:
      break;
  }
  return Layout::kLayered;
}

// Returns the paths of a sample's members: the manifest first, the payload last.
std::vector<std::string> PathsOf(const SampleSnapshot& sample) {
  std::vector<std::string> paths;
  for (const test::TarEntry& entry : test::MakeSampleArchive({sample}).entries) {
    paths.push_back(entry.name);
  }
  return paths;
}

IncomingSnapshot& Add(IncomingSnapshots& snapshots, const SampleSnapshot& sample) {
  const std::string path = PathsOf(sample).front();
  return snapshots.Add(LayoutOf(sample), ParseMemberPath(path)->snapshot, path, sample.manifest);
}

std::vector<IncomingSnapshot*> Arrive(IncomingSnapshots& snapshots, const SampleSnapshot& sample) {
  const MemberPath path = *ParseMemberPath(PathsOf(sample).back());
  std::vector<IncomingSnapshot*> owners = snapshots.Awaiting(path);
  for (IncomingSnapshot* owner : owners) owner->awaited.erase(path.file);
  return owners;
}

std::vector<std::string> IdsOf(const std::vector<SampleSnapshot>& samples) {
  std::vector<std::string> ids;
  for (const SampleSnapshot& sample : samples) ids.push_back(sample.id);
  return ids;
}

// Returns the ids in order, after all samples have arrived completely in the given order.
std::vector<std::string> Order(const std::vector<SampleSnapshot>& samples) {
  IncomingSnapshots snapshots(ArchiveWords());
  for (const SampleSnapshot& sample : samples) {
    Add(snapshots, sample);
    Arrive(snapshots, sample);
  }
  std::vector<std::string> ids;
  for (const IncomingSnapshot* snapshot : snapshots.InOrder()) ids.push_back(snapshot->id);
  return ids;
}

void ExpectNoOrder(const std::vector<SampleSnapshot>& samples, const char* message) {
  EXPECT_MSB_ERROR(Order(samples), ErrorKind::kSnapshotIntegrity, message);
}

// Returns a chain in which each snapshot is the parent of the next.
std::vector<SampleSnapshot> Chain(SampleLayout layout, std::uint32_t length) {
  std::vector<SampleSnapshot> chain;
  for (std::uint32_t n = 1; n <= length; ++n) {
    test::SampleOptions options{.seed = n, .algorithm = ""};
    if (n > 1) options.parent = chain.back().id;
    chain.push_back(MakeSampleSnapshot(layout, options));
  }
  return chain;
}

// The ids of this layout can be chosen freely, so they can form circles.
SampleSnapshot Layered(std::uint32_t seed, std::uint32_t parent_seed) {
  const std::string parent = MakeSampleSnapshot(SampleLayout::kLayered, {.seed = parent_seed}).id;
  return MakeSampleSnapshot(SampleLayout::kLayered, {.seed = seed, .parent = parent});
}

TEST(IncomingTest, KnowsASnapshotByItsManifest) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleSnapshot sample = MakeSampleSnapshot(layout);
    SCOPED_TRACE(sample.id);
    IncomingSnapshots snapshots(ArchiveWords());
    EXPECT_TRUE(snapshots.empty());
    IncomingSnapshot& added = Add(snapshots, sample);
    EXPECT_FALSE(snapshots.empty());
    EXPECT_EQ(added.directory, ParseMemberPath(PathsOf(sample).front())->snapshot);
    EXPECT_EQ(added.id, sample.id);
    EXPECT_EQ(added.manifest.digest, sample.digest);
    EXPECT_EQ(added.manifest_path, PathsOf(sample).front());
    EXPECT_EQ(added.manifest_digest, sample.digest);
    EXPECT_THAT(added.awaited,
                ElementsAre(layout == SampleLayout::kLayered ? "layers/" + sample.layer_id + ".raw"
                                                             : "upper.ext4"));
    EXPECT_EQ(snapshots.Find(added.directory), &added);
    EXPECT_EQ(snapshots.Find(added.directory + "0"), nullptr);
  }
}

TEST(IncomingTest, RefusesTheManifestOfAnotherSnapshot) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleSnapshot sample = MakeSampleSnapshot(layout);
    const std::string path = PathsOf(MakeSampleSnapshot(layout, {.seed = 2})).front();
    IncomingSnapshots snapshots(ArchiveWords());
    EXPECT_MSB_ERROR(
        snapshots.Add(LayoutOf(sample), ParseMemberPath(path)->snapshot, path, sample.manifest),
        ErrorKind::kSnapshotIntegrity, path + " must match the name of its directory",
        "the manifest of " + sample.id);
    EXPECT_TRUE(snapshots.empty());
  }
}

TEST(IncomingTest, RefusesManifestsOfOtherLayoutsAndNone) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleSnapshot sample = MakeSampleSnapshot(layout);
    const std::string path = PathsOf(sample).front();
    IncomingSnapshots snapshots(ArchiveWords());
    std::vector<std::string> texts = {"", "{}", sample.manifest + "x"};
    for (const SampleLayout other : kSampleLayouts) {
      if (other != layout) texts.push_back(MakeSampleSnapshot(other).manifest);
    }
    for (const std::string& text : texts) {
      EXPECT_MSB_ERROR(snapshots.Add(LayoutOf(sample), ParseMemberPath(path)->snapshot, path, text),
                       ErrorKind::kSnapshotIntegrity, "malformed manifest " + path);
    }
    EXPECT_TRUE(snapshots.empty());
  }
}

TEST(IncomingTest, RefusesCheckpoints) {
  const SampleSnapshot sample =
      MakeSampleSnapshot(SampleLayout::kInventory, {.edit = [](test::Json& manifest) {
                           manifest["scope"] = "resumable";
                           manifest["state"] = {{"kind", "checkpoint"},
                                                {"checkpoint_id", "c1"},
                                                {"manifest", "sha256:" + std::string(64, 'a')}};
                         }});
  IncomingSnapshots snapshots(ArchiveWords());
  EXPECT_MSB_ERROR(Add(snapshots, sample), ErrorKind::kUnsupportedOperation,
                   "/snapshot.json is a checkpoint of a running sandbox",
                   "only its runtime can import it");
  EXPECT_TRUE(snapshots.empty());
}

TEST(IncomingTest, APayloadArrivesOnceForTheSnapshotInItsDirectory) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::vector<SampleSnapshot> chain = Chain(layout, 2);
    SCOPED_TRACE(chain[0].id);
    IncomingSnapshots snapshots(ArchiveWords());
    EXPECT_TRUE(Arrive(snapshots, chain[0]).empty());
    IncomingSnapshot& first = Add(snapshots, chain[0]);
    EXPECT_TRUE(Arrive(snapshots, chain[1]).empty());
    IncomingSnapshot& second = Add(snapshots, chain[1]);
    EXPECT_THAT(Arrive(snapshots, chain[1]), ElementsAre(&second));
    EXPECT_TRUE(second.awaited.empty());
    EXPECT_EQ(first.awaited.size(), 1U);
    EXPECT_TRUE(Arrive(snapshots, chain[1]).empty());
    EXPECT_THAT(Arrive(snapshots, chain[0]), ElementsAre(&first));
  }
}

TEST(IncomingTest, RefusesPayloadsThatNoManifestNames) {
  IncomingSnapshots snapshots(ArchiveWords());
  const IncomingSnapshot& added = Add(snapshots, MakeSampleSnapshot(SampleLayout::kInventory));
  const MemberPath path{.in_inventory = true,
                        .kind = MemberKind::kPayload,
                        .snapshot = added.directory,
                        .file = "other.ext4"};
  EXPECT_TRUE(snapshots.Awaiting(path).empty());
  EXPECT_EQ(added.awaited.size(), 1U);
}

TEST(IncomingTest, ALayerArrivesForAllThatStandOnIt) {
  const SampleSnapshot parent = MakeSampleSnapshot(SampleLayout::kLayered, {.seed = 1});
  const auto stand_on_the_same = [&](test::Json& manifest) {
    manifest["state"]["head"] = parent.layer_id;
    manifest["state"]["layers"][0]["layer_id"] = parent.layer_id;
  };
  const SampleSnapshot child = MakeSampleSnapshot(
      SampleLayout::kLayered, {.seed = 2, .parent = parent.id, .edit = stand_on_the_same});
  const SampleSnapshot other = Layered(3, 2);
  IncomingSnapshots snapshots(ArchiveWords());
  IncomingSnapshot& first = Add(snapshots, parent);
  IncomingSnapshot& second = Add(snapshots, child);
  const IncomingSnapshot& third = Add(snapshots, other);
  EXPECT_THAT(Arrive(snapshots, parent), ElementsAre(&first, &second));
  EXPECT_TRUE(first.awaited.empty());
  EXPECT_TRUE(second.awaited.empty());
  EXPECT_EQ(third.awaited.size(), 1U);
  EXPECT_TRUE(Arrive(snapshots, parent).empty());
}

TEST(IncomingTest, ParentsComeFirstHoweverTheyArrived) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::vector<SampleSnapshot> chain = Chain(layout, 4);
    std::vector<std::size_t> arrival = {0, 1, 2, 3};
    do {
      std::vector<SampleSnapshot> samples;
      for (const std::size_t n : arrival) samples.push_back(chain[n]);
      EXPECT_EQ(Order(samples), IdsOf(chain));
    } while (std::next_permutation(arrival.begin(), arrival.end()));
  }
}

TEST(IncomingTest, TheFirstMayHaveAParentThatIsElsewhere) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::vector<SampleSnapshot> chain = Chain(layout, 3);
    EXPECT_THAT(Order({chain[2]}), ElementsAre(chain[2].id));
    EXPECT_THAT(Order({chain[2], chain[1]}), ElementsAre(chain[1].id, chain[2].id));
  }
}

TEST(IncomingTest, RefusesSnapshotsWithoutTheirDisk) {
  for (const SampleLayout layout : kSampleLayouts) {
    for (const std::size_t without : {0U, 1U}) {
      const std::vector<SampleSnapshot> chain = Chain(layout, 2);
      IncomingSnapshots snapshots(ArchiveWords());
      for (const SampleSnapshot& sample : chain) Add(snapshots, sample);
      Arrive(snapshots, chain[1 - without]);
      EXPECT_MSB_ERROR(snapshots.CheckArrived(), ErrorKind::kSnapshotIntegrity,
                       "the archive's snapshot " + chain[without].id + " lacks its disk '",
                       "copy or export the archive again");
      Arrive(snapshots, chain[without]);
      snapshots.CheckArrived();
    }
  }
}

TEST(IncomingTest, RefusesAllButOneChain) {
  EXPECT_MSB_ERROR(IncomingSnapshots(ArchiveWords()).InOrder(), ErrorKind::kSnapshotIntegrity,
                   "the snapshots of the archive must form a single chain of parents",
                   "copy or export the archive again");
  for (const SampleLayout layout : kSampleLayouts) {
    const std::vector<SampleSnapshot> chain = Chain(layout, 3);
    const SampleSnapshot sibling = MakeSampleSnapshot(layout, {.seed = 9, .parent = chain[0].id});
    // Two heads with one parent, two heads without parents, and a chain with a gap.
    ExpectNoOrder({chain[0], chain[1], sibling}, "the archive must have one head, but has ");
    ExpectNoOrder({chain[0], MakeSampleSnapshot(layout, {.seed = 9})},
                  "the archive must have one head, but has ");
    ExpectNoOrder({chain[0], chain[2]}, "the archive must have one head, but has ");
  }
}

TEST(IncomingTest, RefusesCircles) {
  ExpectNoOrder({Layered(1, 1)}, "must form a single chain of parents");
  ExpectNoOrder({Layered(1, 2), Layered(2, 1)}, "must form a single chain of parents");
  ExpectNoOrder({Layered(1, 3), Layered(2, 1), Layered(3, 2)},
                "must form a single chain of parents");
  // With a head on the circle, or beside it.
  ExpectNoOrder({Layered(1, 2), Layered(2, 1), Layered(3, 2)},
                "must form a single chain of parents");
  ExpectNoOrder({Layered(1, 1), Layered(2, 1)}, "must form a single chain of parents");
  ExpectNoOrder({Layered(1, 2), Layered(2, 1), Layered(3, 4)},
                "must form a single chain of parents");
}

}  // namespace
}  // namespace msb::archive
