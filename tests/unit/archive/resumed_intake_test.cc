// SPDX-License-Identifier: Apache-2.0
//
// Intakes with a resume key.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "src/archive/intake.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "tests/support/archive_sample.h"
#include "tests/support/support.h"
#include "tests/unit/archive/image_sample.h"
#include "tests/unit/archive/intake_fixture.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using test::ListTree;
using test::MakeSampleSnapshot;
using test::SampleLayout;
using test::SampleSnapshot;
using test::WriteFile;

// An intake that is interrupted and continued.
class ResumedIntakeTest : public IntakeTest {
 protected:
  // Leaves the parent's manifest and the first half of its disk.
  void Leave() {
    Intake intake(ctx_, spec_, RegistryWords(), key_);
    const IncomingSnapshot& snapshot = Add(intake, parent_);
    const std::string& content = parent_.upper;
    const StagedFile file = intake.OpenDisk(snapshot, FileOf(snapshot), content.size());
    base::WriteExactly(file.fd.get(), content.data(), content.size() / 2, 0);
    file_ = FileOf(snapshot);
    left_ = intake.DiskPath(snapshot, file_).parent_path();
  }

  // Takes in the parent, and expects the disk to begin with what was left of it.
  void Continue(std::size_t left) {
    Intake intake(ctx_, spec_, RegistryWords(), key_);
    IncomingSnapshot& snapshot = Add(intake, parent_);
    const std::string& content = parent_.upper;
    const StagedFile file = intake.OpenDisk(snapshot, file_, content.size());
    EXPECT_EQ(file.is_left, left != 0);
    std::string found(content.size(), '\0');
    base::ReadExactly(file.fd.get(), found.data(), found.size(), 0);
    EXPECT_EQ(found, content.substr(0, left) + std::string(content.size() - left, '\0'));
    base::WriteExactly(file.fd.get(), content.data(), content.size(), 0);
    base::Sync(file.fd.get());
    intake.AcceptDisk(snapshot, file_,
                      {.name = "d",
                       .size = content.size(),
                       .path = intake.DiskPath(snapshot, file_),
                       .integrity = {}});
    Finish(intake);
  }

  const std::string key_ = std::string(64, 'b');
  std::string file_;
  fs::path left_;  // The directory of the parent in the stage.
};

TEST_F(ResumedIntakeTest, ContinuesWithTheDiskThatIsLeft) {
  Leave();
  EXPECT_TRUE(fs::exists(left_ / file_));
  Continue(parent_.upper.size() / 2);
  ExpectPublished({parent_});
}

TEST_F(ResumedIntakeTest, ContinuesAfterItsProcessWasKilled) {
  const pid_t child = fork();
  if (child == 0) {
    Intake intake(ctx_, spec_, RegistryWords(), key_);
    Take(intake, parent_);
    Add(intake, child_);
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  file_ = "upper.ext4";
  Continue(parent_.upper.size());
  ExpectPublished({parent_});
}

TEST_F(ResumedIntakeTest, ReplacesWhatCannotBeUsed) {
  const std::string precious(parent_.upper.size(), 'p');
  const fs::path outside = dir_ / "outside";
  const std::vector<std::function<void()>> changes = {
      [&] { WriteFile(left_ / file_, "short"); },
      [&] {
        fs::remove(left_ / file_);
        fs::create_symlink(outside / "disk", left_ / file_);
      },
      [&] {
        fs::remove(left_ / file_);
        fs::create_hard_link(outside / "disk", left_ / file_);
      },
      [&] {
        fs::remove(left_ / file_);
        WriteFile(left_ / file_ / "sub", "a directory");
      },
      [&] {
        fs::remove_all(left_);
        fs::create_directory_symlink(outside, left_);
      },
      [&] {
        fs::remove_all(left_);
        WriteFile(left_, "a file");
      },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    const testing::ScopedTrace trace(__FILE__, __LINE__, std::to_string(i));
    fs::remove_all(spec_.destination);
    WriteFile(outside / "disk", precious);
    Leave();
    changes[i]();
    Continue(0);
    ExpectPublished({parent_});
    EXPECT_EQ(test::ReadFile(outside / "disk"), precious);
    EXPECT_EQ(ListTree(outside).size(), 1U);
  }
}

TEST_F(ResumedIntakeTest, WritesTheManifestAgainAndRemovesOtherFiles) {
  Leave();
  WriteFile(dir_ / "outside", "precious");
  fs::remove(left_ / "snapshot.json");
  fs::create_symlink(dir_ / "outside", left_ / "snapshot.json");
  WriteFile(left_ / "other/file", "unexpected");
  Continue(parent_.upper.size() / 2);
  ExpectPublished({parent_});
  EXPECT_EQ(test::ReadFile(dir_ / "outside"), "precious");
}

TEST_F(ResumedIntakeTest, WaitsForAnotherAndSeesWhatItPublished) {
  std::optional<Intake> first;
  first.emplace(ctx_, spec_, RegistryWords(), key_);
  Take(*first, parent_);
  const Context late = ctx_.WithTimeout(std::chrono::milliseconds(50));
  Intake cancelled(late, spec_, RegistryWords(), key_);
  EXPECT_MSB_ERROR(Add(cancelled, parent_), ErrorKind::kCancelled, "deadline exceeded");
  std::thread second([&] {
    const Context soon = test::Soon();
    Intake intake(soon, spec_, RegistryWords(), key_);
    Add(intake, parent_);
    EXPECT_NE(intake.FindPresent(intake.snapshots().InOrder()), nullptr);
  });
  Finish(*first);
  first.reset();
  second.join();
  ExpectPublished({parent_});
}

TEST_F(ResumedIntakeTest, IsDeletedIfItIsDiscarded) {
  Leave();
  {
    Intake intake(ctx_, spec_, RegistryWords(), key_);
    intake.stage();
    intake.Discard();
  }
  EXPECT_TRUE(fs::is_empty(spec_.destination));
}

// Publication moves the parents first, so a failure may take only them out of the stage.
TEST_F(ResumedIntakeTest, ContinuesAfterOnlyTheParentWasPublished) {
  {
    Intake intake(ctx_, spec_, RegistryWords(), key_);
    Take(intake, parent_);
    Take(intake, child_);
  }
  const fs::path stage = fs::directory_iterator(spec_.destination)->path();
  fs::rename(stage / DirectoryName(parent_), spec_.destination / DirectoryName(parent_));
  {
    Intake intake(ctx_, spec_, RegistryWords(), key_);
    Add(intake, parent_);
    IncomingSnapshot& child = Add(intake, child_);
    const auto order = intake.snapshots().InOrder();
    EXPECT_EQ(intake.FindPresent(order), nullptr);
    EXPECT_TRUE(intake.OpenDisk(child, FileOf(child), child_.upper.size()).is_left);
    intake.AcceptDisk(child, FileOf(child),
                      {.name = "d",
                       .size = child_.upper.size(),
                       .path = intake.DiskPath(child, FileOf(child)),
                       .integrity = {}});
    intake.Publish(order);
  }
  ExpectPublished({parent_, child_});
}

TEST_F(ResumedIntakeTest, KeepsImageFiles) {
  const ImageSample image = MakeOciImage("a");
  const SampleSnapshot sample =
      MakeSampleSnapshot(SampleLayout::kInventory, {.image = image.image});
  {
    Intake intake(ctx_, spec_, RegistryWords(), key_);
    for (const auto& [name, content] : image.files) {
      const StagedFile file = intake.OpenImageFile(name, content.size());
      base::WriteExactly(file.fd.get(), content.data(), content.size(), 0);
    }
  }
  Intake intake(ctx_, spec_, RegistryWords(), key_);
  Take(intake, sample);
  for (const auto& [name, content] : image.files) {
    std::string found(content.size(), '\0');
    base::ReadExactly(intake.OpenImageFile(name, content.size()).fd.get(), found.data(),
                      found.size(), 0);
    EXPECT_EQ(found, content) << name;
  }
  Finish(intake);
  EXPECT_EQ(FilesOfImage(spec_.cache_dir, image.image).size(), image.files.size());
}

TEST_F(ResumedIntakeTest, RefusesImageFilesThatNoImageHasAndThoseThatOccurTwice) {
  Intake intake(ctx_, spec_, RegistryWords(), key_);
  EXPECT_MSB_ERROR(intake.OpenImageFile("../x", 1), ErrorKind::kSnapshotIntegrity,
                   "disk '../x' is not a file of an image", "push the snapshot again");
  const std::string file = MakeOciImage("a").vmdk;
  intake.OpenImageFile(file, 1);
  EXPECT_MSB_ERROR(intake.OpenImageFile(file, 1), ErrorKind::kSnapshotIntegrity,
                   "disk '" + file + "' occurs twice", "push the snapshot again");
}

TEST_F(ResumedIntakeTest, RefusesASnapshotThatOccursTwice) {
  Intake intake(ctx_, spec_, RegistryWords(), key_);
  Add(intake, parent_);
  EXPECT_MSB_ERROR(Add(intake, parent_), ErrorKind::kSnapshotIntegrity,
                   "r.test/vm:1 has the snapshot " + parent_.digest + " twice",
                   "push the snapshot again");
}

}  // namespace
}  // namespace msb::archive
