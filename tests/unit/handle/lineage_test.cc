// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "src/handle/export_lineage.h"
#include "tests/support/archive_sample.h"
#include "tests/support/support.h"

namespace msb::handle {
namespace {

namespace fs = std::filesystem;
using artifact::Artifact;
using test::kSampleLayouts;
using test::MakeSampleSnapshot;
using test::SampleLayout;
using test::SampleSnapshot;
using testing::ElementsAre;
using testing::HasSubstr;

class LineageTest : public testing::Test {
 protected:
  LineageTest() {
    fs::create_directories(snapshots_);
    // Makes the index while there are no artifacts, so that later ones must be recorded in it.
    catalog_.List(ctx_);
  }

  static Artifact Put(const fs::path& path, const SampleSnapshot& sample) {
    const bool legacy = sample.layout == SampleLayout::kLegacy;
    test::WriteFile(path / (legacy ? "manifest.json" : "snapshot.json"), sample.manifest);
    test::WriteFile(
        path / (sample.layout == SampleLayout::kLayered ? "layers/" + sample.layer_id + ".raw"
                                                        : "upper.ext4"),
        sample.upper);
    return artifact::OpenArtifactAt(path);
  }

  // Returns the paths of a snapshot's lineage.
  std::vector<fs::path> Lineage(const Artifact& head) { return Lineage(ctx_, head); }
  std::vector<fs::path> Lineage(const Context& ctx, const Artifact& head) {
    std::vector<fs::path> paths;
    SnapshotFinder finder(ctx, catalog_);
    const ExportLineage lineage = LineageForExport(ctx, finder, artifact::OpenAt(ctx_, head.path),
                                                   /*with_parents=*/true, std::nullopt);
    for (const auto& opened : lineage.snapshots) paths.push_back(opened.artifact.path);
    return paths;
  }

  const Context ctx_ = Context::Background();
  test::TempDir dir_;
  const fs::path snapshots_ = dir_ / "home/snapshots";
  Catalog catalog_{base::Home({.home = dir_ / "home"}), [](std::string_view) {}};
};

SampleSnapshot Sample(std::uint32_t seed, const std::optional<std::string>& parent = {},
                      SampleLayout layout = SampleLayout::kInventory) {
  return MakeSampleSnapshot(layout, {.seed = seed, .parent = parent});
}

TEST_F(LineageTest, WithoutAParentItIsTheSnapshotAlone) {
  const Artifact head = Put(dir_ / "head", Sample(1));
  EXPECT_THAT(Lineage(head), ElementsAre(head.path));
}

TEST_F(LineageTest, ParentsAreFoundInTheIndex) {
  for (const SampleLayout layout : {SampleLayout::kLegacy, SampleLayout::kInventory}) {
    const fs::path dir = dir_ / std::to_string(static_cast<int>(layout));
    const SampleSnapshot sample = Sample(1, {}, layout);
    const Artifact parent = Put(dir / "elsewhere/parent", sample);
    const Artifact child = Put(dir / "here/child", Sample(2, sample.id, layout));
    EXPECT_MSB_ERROR(Lineage(child), ErrorKind::kSnapshotNotFound,
                     "/here/child has the parent " + sample.id, "import the parent, or reindex");
    catalog_.Record(ctx_, parent);
    EXPECT_THAT(Lineage(child), ElementsAre(parent.path, child.path));
  }
}

TEST_F(LineageTest, ParentsAreFoundBesideTheChild) {
  for (const SampleLayout layout : kSampleLayouts) {
    const fs::path dir = dir_ / std::to_string(static_cast<int>(layout));
    const SampleSnapshot sample = Sample(1, {}, layout);
    const Artifact parent = Put(dir / "parent", sample);
    Put(dir / "a", Sample(3, {}, layout));
    Put(dir / "z", Sample(4, sample.id, layout));
    test::WriteFile(dir / "broken/snapshot.json", "{");
    const Artifact child = Put(dir / "child", Sample(2, sample.id, layout));
    EXPECT_THAT(Lineage(child), ElementsAre(parent.path, child.path));
  }
}

TEST_F(LineageTest, ParentsAreFoundInTheSnapshotsDirectory) {
  for (const SampleLayout layout : kSampleLayouts) {
    const SampleSnapshot sample = Sample(1, {}, layout);
    const std::string name = std::to_string(static_cast<int>(layout));
    const Artifact parent = Put(snapshots_ / name, sample);
    const Artifact child = Put(dir_ / ("elsewhere" + name) / "child", Sample(2, sample.id, layout));
    EXPECT_THAT(Lineage(child), ElementsAre(parent.path, child.path));
  }
}

TEST_F(LineageTest, ParentsComeFirstWhereverEachIs) {
  const SampleSnapshot first = Sample(1);
  const SampleSnapshot second = Sample(2, first.id);
  const SampleSnapshot third = Sample(3, second.id);
  const SampleSnapshot fourth = Sample(4, third.id);
  const Artifact indexed = Put(dir_ / "a/first", first);
  catalog_.Record(ctx_, indexed);
  const Artifact home = Put(snapshots_ / "second", second);
  const Artifact beside = Put(dir_ / "b/third", third);
  const Artifact head = Put(dir_ / "b/fourth", fourth);
  EXPECT_THAT(Lineage(head), ElementsAre(indexed.path, home.path, beside.path, head.path));
}

TEST_F(LineageTest, AnIndexThatIsOutOfDateDoesNotMislead) {
  const SampleSnapshot sample = Sample(1);
  const Artifact parent = Put(dir_ / "elsewhere/parent", sample);
  const Artifact child = Put(dir_ / "here/child", Sample(2, sample.id));
  catalog_.Record(ctx_, parent);
  // First another snapshot is there, then none.
  fs::rename(parent.path, dir_ / "here/parent");
  Put(parent.path, Sample(3));
  EXPECT_THAT(Lineage(child), ElementsAre(dir_ / "here/parent", child.path));
  fs::remove_all(parent.path);
  EXPECT_THAT(Lineage(child), ElementsAre(dir_ / "here/parent", child.path));
}

TEST_F(LineageTest, AMissingParentIsNamed) {
  const SampleSnapshot first = Sample(1);
  const SampleSnapshot second = Sample(2, first.id);
  Put(snapshots_ / "second", second);
  const Artifact head = Put(snapshots_ / "head", Sample(3, second.id));
  const auto before = test::ListTree(snapshots_);
  try {
    Lineage(head);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kSnapshotNotFound);
    EXPECT_THAT(e.what(), HasSubstr(first.id));
  }
  EXPECT_EQ(test::ListTree(snapshots_), before);
}

// The ids of this layout can be chosen freely.
TEST_F(LineageTest, RefusesCircles) {
  const auto id = [](std::uint32_t seed) { return Sample(seed, {}, SampleLayout::kLayered).id; };
  const auto put = [&](std::uint32_t seed, std::uint32_t parent) {
    return Put(snapshots_ / ("s" + std::to_string(seed)),
               Sample(seed, id(parent), SampleLayout::kLayered));
  };
  EXPECT_MSB_ERROR(Lineage(put(1, 1)), ErrorKind::kSnapshotIntegrity,
                   "/s1 is among its own ancestors", "restore its manifest");
  EXPECT_MSB_ERROR(Lineage(put(2, 1)), ErrorKind::kSnapshotIntegrity,
                   "/s1 is among its own ancestors", "restore its manifest");
  put(3, 5);
  put(4, 3);
  EXPECT_MSB_ERROR(Lineage(put(5, 4)), ErrorKind::kSnapshotIntegrity,
                   "/s5 is among its own ancestors", "restore its manifest");
}

TEST_F(LineageTest, StopsWhenCancelled) {
  const SampleSnapshot sample = Sample(1);
  Put(snapshots_ / "parent", sample);
  const Artifact child = Put(snapshots_ / "child", Sample(2, sample.id));
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(Lineage(ctx, child), ErrorKind::kCancelled, "cancelled");
}

}  // namespace
}  // namespace msb::handle
