// SPDX-License-Identifier: Apache-2.0
//
// A receiver of sample snapshots, for tests of Intake.

#ifndef MSB_TESTS_UNIT_ARCHIVE_INTAKE_FIXTURE_H_
#define MSB_TESTS_UNIT_ARCHIVE_INTAKE_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "src/archive/intake.h"
#include "src/artifact/store.h"
#include "src/base/digest.h"
#include "tests/support/archive_sample.h"
#include "tests/support/support.h"

namespace msb::archive {

inline SourceWords RegistryWords() {
  return {.noun = "r.test/vm:1",
          .part = "disk",
          .identity = "the digest in its index",
          .next_step = "push the snapshot again",
          .elsewhere = "pull to another directory",
          .complete = "push the snapshot again with its parents",
          .resend = "push the result"};
}

inline std::string DirectoryName(const test::SampleSnapshot& sample) {
  return DirectoryOf(Layout::kInventory, base::Digest::Require(sample.digest));
}

class IntakeTest : public ::testing::Test {
 protected:
  IncomingSnapshot& Add(Intake& intake, const test::SampleSnapshot& sample) {
    return intake.Add(Layout::kInventory, DirectoryName(sample), "manifest " + sample.id,
                      sample.manifest);
  }

  // Writes the disk of a snapshot, and returns its description. The integrity is unknown.
  static StagedDisk Stage(const Intake& intake, const IncomingSnapshot& snapshot,
                          const std::string& content) {
    const std::filesystem::path path = intake.DiskPath(snapshot, FileOf(snapshot));
    test::WriteFile(path, content);
    return {.name = "d", .size = content.size(), .path = path, .integrity = {}};
  }

  static std::string FileOf(const IncomingSnapshot& snapshot) {
    return snapshot.manifest.layers.at(0).file;
  }

  void Take(Intake& intake, const test::SampleSnapshot& sample) {
    IncomingSnapshot& snapshot = Add(intake, sample);
    intake.AcceptDisk(snapshot, FileOf(snapshot), Stage(intake, snapshot, sample.upper));
  }

  static std::vector<artifact::Artifact> Finish(Intake& intake) {
    intake.snapshots().CheckArrived();
    const auto order = intake.snapshots().InOrder();
    intake.CheckImages(order);
    EXPECT_EQ(intake.FindPresent(order), nullptr);
    intake.CheckBacking(order, {});
    return intake.Publish(order);
  }

  // Expects the destination to have exactly these snapshots, complete.
  void ExpectPublished(const std::vector<test::SampleSnapshot>& samples) const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(spec_.destination)) {
      EXPECT_FALSE(entry.path().filename().native().starts_with(".")) << entry.path();
      ++count;
    }
    EXPECT_EQ(count, samples.size());
    for (const test::SampleSnapshot& sample : samples) {
      const std::filesystem::path path = spec_.destination / DirectoryName(sample);
      const artifact::Artifact artifact = artifact::OpenArtifactAt(path);
      EXPECT_EQ(artifact.manifest.digest, sample.digest);
      EXPECT_EQ(test::ReadFile(path / artifact.manifest.layers.at(0).file), sample.upper);
      EXPECT_EQ(test::ListTree(path).size(), 2U);
    }
  }

  const Context ctx_ = Context::Background();
  const test::TempDir dir_;
  IntakeSpec spec_{.destination = dir_ / "new/dest", .cache_dir = dir_ / "cache"};
  // The child's raw disk is not backed by that of the parent.
  const test::SampleSnapshot parent_ =
      test::MakeSampleSnapshot(test::SampleLayout::kInventory, {.seed = 1});
  const test::SampleSnapshot child_ =
      test::MakeSampleSnapshot(test::SampleLayout::kInventory, {.seed = 2, .parent = parent_.id});
};

}  // namespace msb::archive

#endif  // MSB_TESTS_UNIT_ARCHIVE_INTAKE_FIXTURE_H_
