// SPDX-License-Identifier: Apache-2.0

#include "src/archive/intake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "src/artifact/store.h"
#include "src/disk/disk_names.h"
#include "tests/support/archive_sample.h"
#include "tests/support/support.h"
#include "tests/unit/archive/image_sample.h"
#include "tests/unit/archive/intake_fixture.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using artifact::Artifact;
using test::ListTree;
using test::MakeSampleSnapshot;
using test::SampleLayout;
using test::SampleSnapshot;
using test::WriteFile;
using testing::ElementsAre;

using Tree = std::map<std::string, std::string>;

TEST_F(IntakeTest, PublishesAChainAtOnce) {
  {
    Intake intake(ctx_, spec_, RegistryWords());
    EXPECT_FALSE(fs::exists(spec_.destination));
    Take(intake, child_);
    Take(intake, parent_);
    EXPECT_FALSE(fs::exists(spec_.destination / DirectoryName(parent_)));
    const std::vector<Artifact> artifacts = Finish(intake);
    ASSERT_EQ(artifacts.size(), 2U);
    EXPECT_EQ(artifacts[0].path, spec_.destination / DirectoryName(parent_));
    EXPECT_EQ(artifacts[1].path, spec_.destination / DirectoryName(child_));
  }
  ExpectPublished({parent_, child_});
}

TEST_F(IntakeTest, LeavesNothingUnlessItIsPublished) {
  {
    Intake intake(ctx_, spec_, RegistryWords());
    Take(intake, parent_);
    EXPECT_TRUE(fs::exists(spec_.destination));
  }
  EXPECT_EQ(ListTree(dir_.path()), Tree());
}

TEST_F(IntakeTest, GivesTheHeadItsName) {
  spec_.name = "head";
  {
    Intake intake(ctx_, spec_, RegistryWords());
    Take(intake, parent_);
    Take(intake, child_);
    EXPECT_EQ(Finish(intake).back().path, spec_.destination / "head");
  }
  EXPECT_EQ(artifact::OpenArtifactAt(spec_.destination / "head").manifest.digest, child_.digest);
  const Intake next(ctx_, spec_, RegistryWords());
  EXPECT_MSB_ERROR(next.CheckNameFree(), ErrorKind::kSnapshotAlreadyExists, "/head exists",
                   "remove it, or pull to another directory");
}

TEST_F(IntakeTest, RefusesAManifestThatDoesNotBelongToItsDirectory) {
  Intake intake(ctx_, spec_, RegistryWords());
  EXPECT_MSB_ERROR(
      intake.Add(Layout::kInventory, DirectoryName(child_), "manifest x", parent_.manifest),
      ErrorKind::kSnapshotIntegrity,
      "manifest x must match the digest in its index, but is the manifest of " + parent_.digest +
          "; push the snapshot again");
  EXPECT_FALSE(fs::exists(spec_.destination));
}

TEST_F(IntakeTest, RefusesADirectoryThatIsTaken) {
  WriteFile(spec_.destination / DirectoryName(parent_) / "file", "precious");
  const Tree before = ListTree(dir_.path());
  {
    Intake intake(ctx_, spec_, RegistryWords());
    EXPECT_MSB_ERROR(Add(intake, parent_), ErrorKind::kSnapshotAlreadyExists,
                     "/" + DirectoryName(parent_) + " exists; remove it",
                     "pull to another directory");
  }
  EXPECT_EQ(ListTree(dir_.path()), before);
}

TEST_F(IntakeTest, PublishesNothingIfOneNameIsTakenMeanwhile) {
  for (const SampleSnapshot* sample : {&parent_, &child_}) {
    fs::remove_all(spec_.destination);
    {
      Intake intake(ctx_, spec_, RegistryWords());
      Take(intake, parent_);
      Take(intake, child_);
      WriteFile(spec_.destination / DirectoryName(*sample) / "file", "precious");
      EXPECT_MSB_ERROR(Finish(intake), ErrorKind::kSnapshotAlreadyExists,
                       "/" + DirectoryName(*sample) + " exists; remove it",
                       "pull to another directory");
    }
    EXPECT_EQ(ListTree(spec_.destination).size(), 2U);
  }
}

// Two calls bring different children of one parent.
TEST_F(IntakeTest, UsesAParentThatAnotherCallPublishesMeanwhile) {
  const SampleSnapshot sibling =
      MakeSampleSnapshot(SampleLayout::kInventory, {.seed = 3, .parent = parent_.id});
  Intake intake(ctx_, spec_, RegistryWords());
  Take(intake, parent_);
  Take(intake, child_);
  {
    Intake other(ctx_, spec_, RegistryWords());
    Take(other, parent_);
    Take(other, sibling);
    Finish(other);
  }
  const std::vector<Artifact> artifacts = Finish(intake);
  ASSERT_EQ(artifacts.size(), 2U);
  EXPECT_EQ(artifacts[0].path, spec_.destination / DirectoryName(parent_));
  EXPECT_TRUE(intake.snapshots().Find(DirectoryName(parent_))->present);
  for (const SampleSnapshot* sample : {&parent_, &sibling, &child_}) {
    const fs::path path = spec_.destination / DirectoryName(*sample);
    EXPECT_EQ(artifact::OpenArtifactAt(path).manifest.digest, sample->digest);
  }
}

TEST_F(IntakeTest, UsesAHeadThatAnotherCallPublishesMeanwhile) {
  Intake intake(ctx_, spec_, RegistryWords());
  Take(intake, parent_);
  {
    Intake other(ctx_, spec_, RegistryWords());
    Take(other, parent_);
    Finish(other);
  }
  const std::vector<Artifact> artifacts = Finish(intake);
  ASSERT_EQ(artifacts.size(), 1U);
  EXPECT_EQ(artifacts[0].path, spec_.destination / DirectoryName(parent_));
  EXPECT_TRUE(intake.snapshots().Find(DirectoryName(parent_))->present);
}

TEST_F(IntakeTest, RefusesAHeadNamedAsItsParent) {
  spec_.name = DirectoryName(parent_);
  {
    Intake intake(ctx_, spec_, RegistryWords());
    Take(intake, parent_);
    Take(intake, child_);
    EXPECT_MSB_ERROR(Finish(intake), ErrorKind::kSnapshotAlreadyExists,
                     "snapshot " + child_.digest + " cannot be named '" + *spec_.name +
                         "': that is the name of snapshot " + parent_.digest +
                         ", which is also in r.test/vm:1; choose another name");
  }
  EXPECT_FALSE(fs::exists(spec_.destination));
}

TEST_F(IntakeTest, RefusesADiskOfTheWrongSizeOrContent) {
  Intake intake(ctx_, spec_, RegistryWords());
  IncomingSnapshot& snapshot = Add(intake, parent_);
  std::string content = parent_.upper;
  content.back() = '\x01';
  StagedDisk staged = Stage(intake, snapshot, content);
  EXPECT_MSB_ERROR(
      intake.AcceptDisk(snapshot, FileOf(snapshot), staged), ErrorKind::kSnapshotIntegrity,
      "disk 'd' differs from its manifest: expected " + *parent_.integrity + ", found blake3",
      "; push the snapshot again");
  staged.size += 1;
  EXPECT_MSB_ERROR(intake.AcceptDisk(snapshot, FileOf(snapshot), staged),
                   ErrorKind::kSnapshotIntegrity,
                   "disk 'd' has " + std::to_string(staged.size) +
                       " bytes, but its manifest records " + std::to_string(content.size()),
                   "; push the snapshot again");
  EXPECT_MSB_ERROR(intake.snapshots().CheckArrived(), ErrorKind::kSnapshotIntegrity,
                   "r.test/vm:1's snapshot " + parent_.digest + " lacks its disk '",
                   "push the snapshot again");
}

// The disk is not read again if its integrity was computed while it arrived.
TEST_F(IntakeTest, ComparesTheIntegrityThatIsKnown) {
  Intake intake(ctx_, spec_, RegistryWords());
  IncomingSnapshot& snapshot = Add(intake, parent_);
  StagedDisk staged{.name = "d", .size = parent_.upper.size(), .path = {}, .integrity = {}};
  staged.integrity = {std::string(artifact::kFileMerkle), "blake3:" + std::string(64, '0')};
  EXPECT_MSB_ERROR(intake.AcceptDisk(snapshot, FileOf(snapshot), staged),
                   ErrorKind::kSnapshotIntegrity, "found blake3:" + std::string(64, '0'));
  staged.integrity->digest = *parent_.integrity;
  intake.AcceptDisk(snapshot, FileOf(snapshot), staged);
  intake.snapshots().CheckArrived();
}

TEST_F(IntakeTest, RefusesADamagedQcow2Disk) {
  const SampleSnapshot sample = MakeSampleSnapshot(
      SampleLayout::kInventory, {.algorithm = "", .edit = [](test::Json& manifest) {
                                   for (test::Json& field : manifest) {
                                     if (field.is_object() && field.contains("format"))
                                       field["format"] = "qcow2";
                                   }
                                   if (manifest.contains("format")) manifest["format"] = "qcow2";
                                 }});
  Intake intake(ctx_, spec_, RegistryWords());
  IncomingSnapshot& snapshot = Add(intake, sample);
  ASSERT_EQ(snapshot.manifest.layers.at(0).format, DiskFormat::kQcow2);
  EXPECT_MSB_ERROR(
      intake.AcceptDisk(snapshot, FileOf(snapshot), Stage(intake, snapshot, sample.upper)),
      ErrorKind::kSnapshotIntegrity, "d ");
}

TEST_F(IntakeTest, ReturnsAHeadThatIsPresent) {
  {
    Intake intake(ctx_, spec_, RegistryWords());
    Take(intake, parent_);
    Finish(intake);
  }
  Intake intake(ctx_, spec_, RegistryWords());
  Add(intake, parent_);
  const Artifact* const head = intake.FindPresent(intake.snapshots().InOrder());
  ASSERT_NE(head, nullptr);
  EXPECT_EQ(head->path, spec_.destination / DirectoryName(parent_));
}

TEST_F(IntakeTest, InstallsTheImageOfAHeadThatIsPresent) {
  const ImageSample image = MakeOciImage("a");
  const SampleSnapshot sample =
      MakeSampleSnapshot(SampleLayout::kInventory, {.image = image.image});
  {
    Intake intake(ctx_, spec_, RegistryWords());
    Take(intake, sample);
    Finish(intake);
  }
  Intake intake(ctx_, spec_, RegistryWords());
  Take(intake, sample);
  for (const auto& [name, content] : image.files) WriteFile(intake.AddImageFile(name), content);
  const auto order = intake.snapshots().InOrder();
  intake.CheckImages(order);
  ASSERT_NE(intake.FindPresent(order), nullptr);
  EXPECT_EQ(intake.Publish(order).at(0).path, spec_.destination / DirectoryName(sample));
  EXPECT_EQ(FilesOfImage(spec_.cache_dir, image.image).size(), image.files.size());
}

TEST_F(IntakeTest, NeedsNoDiskOfASnapshotThatIsPresent) {
  std::vector<std::string> asked;
  spec_.find_present = [&](const std::string& digest) {
    asked.push_back(digest);
    return digest == parent_.digest ? std::optional(Artifact{.path = dir_ / "parent"})
                                    : std::nullopt;
  };
  Intake intake(ctx_, spec_, RegistryWords());
  Add(intake, parent_);
  IncomingSnapshot& child = Add(intake, child_);
  const auto order = intake.snapshots().InOrder();
  EXPECT_EQ(intake.FindPresent(order), nullptr);
  EXPECT_THAT(asked, ElementsAre(parent_.digest, child_.digest));
  intake.AcceptDisk(child, FileOf(child), Stage(intake, child, child_.upper));
  intake.snapshots().CheckArrived();
  const std::vector<Artifact> artifacts = intake.Publish(order);
  EXPECT_EQ(artifacts.at(0).path, dir_ / "parent");
  EXPECT_FALSE(fs::exists(spec_.destination / DirectoryName(parent_)));
  EXPECT_TRUE(fs::exists(spec_.destination / DirectoryName(child_)));
}

TEST_F(IntakeTest, RefusesAPresentSnapshotThatCannotBeOpened) {
  WriteFile(spec_.destination / DirectoryName(parent_) / "snapshot.json", parent_.manifest);
  Intake intake(ctx_, spec_, RegistryWords());
  Add(intake, parent_);
  EXPECT_MSB_ERROR(intake.FindPresent(intake.snapshots().InOrder()),
                   ErrorKind::kSnapshotAlreadyExists, DirectoryName(parent_) + " exists");
}

TEST_F(IntakeTest, InstallsImageFiles) {
  const ImageSample image = MakeOciImage("a");
  const SampleSnapshot sample =
      MakeSampleSnapshot(SampleLayout::kInventory, {.image = image.image});
  Intake intake(ctx_, spec_, RegistryWords());
  Take(intake, sample);
  for (const auto& [name, content] : image.files) WriteFile(intake.AddImageFile(name), content);
  EXPECT_EQ(intake.image_files(), image.Names());
  Finish(intake);
  EXPECT_EQ(FilesOfImage(spec_.cache_dir, image.image).size(), image.files.size());
}

TEST_F(IntakeTest, PublishesNothingIfAnImageCannotBeInstalled) {
  const ImageSample image = MakeOciImage("a");
  {
    Intake intake(ctx_, spec_, RegistryWords());
    Take(intake, MakeSampleSnapshot(SampleLayout::kInventory, {.image = image.image}));
    for (const auto& [name, content] : image.files) WriteFile(intake.AddImageFile(name), content);
    const auto order = intake.snapshots().InOrder();
    intake.CheckImages(order);
    WriteFile(spec_.cache_dir / image.layer, "another file");
    EXPECT_MSB_ERROR(intake.Publish(order), ErrorKind::kSnapshotIntegrity,
                     "r.test/vm:1's image file " + image.layer + " differs from ",
                     "remove that image first");
  }
  EXPECT_FALSE(fs::exists(spec_.destination));
}

TEST_F(IntakeTest, NamesTheSourceOfUnexpectedAndDamagedImageFiles) {
  const ImageSample image = MakeOciImage("a");
  Intake intake(ctx_, spec_, RegistryWords());
  Take(intake, parent_);
  for (const auto& [name, content] : image.files) WriteFile(intake.AddImageFile(name), content);
  const auto order = intake.snapshots().InOrder();
  EXPECT_MSB_ERROR(intake.CheckImages(order), ErrorKind::kSnapshotIntegrity,
                   "r.test/vm:1's image file '", "belongs to no image of its snapshots");
  Intake other(ctx_, spec_, RegistryWords());
  Take(other, MakeSampleSnapshot(SampleLayout::kInventory, {.image = image.image}));
  for (const auto& [name, content] : image.files) {
    WriteFile(other.AddImageFile(name), name == image.vmdk ? "damaged" : content);
  }
  EXPECT_MSB_ERROR(other.CheckImages(other.snapshots().InOrder()), ErrorKind::kSnapshotIntegrity,
                   image.vmdk, "push the snapshot again");
}

TEST_F(IntakeTest, NamesTheSourceOfSnapshotsThatFormNoChain) {
  Intake intake(ctx_, spec_, RegistryWords());
  EXPECT_MSB_ERROR(intake.snapshots().InOrder(), ErrorKind::kSnapshotIntegrity,
                   "the snapshots of r.test/vm:1 must form a single chain of parents",
                   "push the snapshot again");
  Take(intake, parent_);
  Take(intake, MakeSampleSnapshot(SampleLayout::kInventory, {.seed = 3}));
  EXPECT_MSB_ERROR(intake.snapshots().InOrder(), ErrorKind::kSnapshotIntegrity,
                   "r.test/vm:1 must have one head, but has ", "; push the snapshot again");
}

TEST_F(IntakeTest, NamesTheSourceOfADiskWithoutItsBackingFile) {
  Intake intake(ctx_, spec_, RegistryWords());
  Take(intake, child_);
  const auto order = intake.snapshots().InOrder();
  order[0]->backing_file = disk::DiskFileName(parent_.digest, DiskFormat::kRaw);
  EXPECT_MSB_ERROR(intake.CheckBacking(order, {}), ErrorKind::kSnapshotNotFound,
                   "the disk of r.test/vm:1's snapshot " + child_.digest,
                   "is backed by snapshot " + parent_.digest +
                       ", which is neither in r.test/vm:1 nor in this home; push the snapshot "
                       "again with its parents");
  order[0]->backing_file = "other.raw";
  EXPECT_MSB_ERROR(intake.CheckBacking(order, {}), ErrorKind::kUnsupportedOperation,
                   "the disk of r.test/vm:1's snapshot ",
                   "squash the snapshot where it was created, and push the result");
}

}  // namespace
}  // namespace msb::archive
