// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/create.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <stdexcept>
#include <utility>

#include "src/artifact/create.h"
#include "src/artifact/disk_chain.h"
#include "src/artifact/store.h"
#include "src/base/digest.h"
#include "tests/support/support.h"

namespace msb::artifact {
namespace {

namespace fs = std::filesystem;
using test::ListTree;

constexpr std::uint64_t kSize = (24 << 20) + 4096;

class StoreCreateTest : public testing::Test {
 protected:
  StoreCreateTest() {
    fs::create_directory(snapshots_);
    test::MakeSparseFile(upper_, kSize,
                         {{0, test::Noise(5000, 1)},
                          {9 << 20, test::Noise(3 << 20, 2)},
                          {kSize - 10, test::Noise(10, 3)}});
    // Any write in a test gives it another time than this.
    fs::last_write_time(upper_, fs::file_time_type::clock::now() - std::chrono::hours(1));
  }

  NewArtifact Spec(const std::string& name, ManifestForm form = ManifestForm::kDescriptor) const {
    Manifest manifest;
    manifest.form = form;
    manifest.created = *base::ParseRfc3339("2026-11-23T12:59:23.5Z");
    manifest.created_at = base::FormatManifestTime(manifest.created);
    manifest.image = {"fixture:1", "sha256:" + std::string(64, 'a')};
    manifest.source_sandbox = "baseline";
    manifest.labels = {{"stage", "one"}};
    manifest.fstype = "ext4";
    manifest.layers = {{.file = "upper.ext4"}};
    return {.destination = snapshots_ / name, .upper = upper_, .manifest = std::move(manifest)};
  }

  const Context ctx_ = Context::Background();
  test::TempDir dir_;
  const fs::path snapshots_ = dir_ / "snapshots";
  const fs::path upper_ = dir_ / "upper.ext4";
};

TEST_F(StoreCreateTest, MakesAnArtifactOfTheSameContentAndHoles) {
  for (const ManifestForm form : {ManifestForm::kManifest, ManifestForm::kDescriptor}) {
    const std::string name(ManifestFileName(form));
    const Artifact made = CreateArtifact(ctx_, Spec(name, form));
    EXPECT_EQ(made.path, snapshots_ / name);
    EXPECT_EQ(made.manifest.size_bytes, kSize);
    EXPECT_EQ(base::Sha256Digest(test::ReadFile(made.path / name)), made.manifest.digest);
    EXPECT_EQ(test::ReadFile(made.path / "upper.ext4"), test::ReadFile(upper_));
    EXPECT_EQ(test::ExtentsOf(made.path / "upper.ext4"), test::ExtentsOf(upper_));
    EXPECT_EQ(ListTree(made.path).size(), 2U);
    const Artifact opened = OpenNamed(ctx_, snapshots_, name).artifact;
    EXPECT_EQ(opened.manifest.digest, made.manifest.digest);
    EXPECT_EQ(opened.manifest.layers.at(0).integrity, std::nullopt);
    EXPECT_EQ(opened.manifest.source_sandbox, "baseline");
  }
}

TEST_F(StoreCreateTest, RecordsTheIntegrityThatItIsAskedFor) {
  for (const std::string_view algorithm : {kSha256, kSparseSha256, kFileMerkle}) {
    NewArtifact spec = Spec(std::string(algorithm));
    spec.integrity_algorithm = algorithm;
    CreateArtifact(ctx_, std::move(spec));
    const Artifact opened = OpenNamed(ctx_, snapshots_, std::string(algorithm)).artifact;
    const Layer& layer = opened.manifest.layers.at(0);
    ASSERT_TRUE(layer.integrity);
    EXPECT_EQ(layer.integrity->algorithm, algorithm);
    const auto verify = [&] {
      OpenedArtifact again = OpenAt(ctx_, opened.path);
      std::vector<DiskFile> files;
      files.push_back(FileOfLayer(again, 0));
      return VerifyFiles(ctx_, files).at(0);
    };
    EXPECT_EQ(verify(), layer.integrity);
    test::PatchFile(opened.path / "upper.ext4", 10 << 20, "?");
    EXPECT_MSB_ERROR(verify(), ErrorKind::kSnapshotIntegrity,
                     "/upper.ext4 is damaged: expected " + layer.integrity->algorithm,
                     "but found ");
  }
}

TEST_F(StoreCreateTest, RefusesAnExistingDestinationAndKeepsIt) {
  CreateArtifact(ctx_, Spec("taken"));
  test::WriteFile(snapshots_ / "file", "mine");
  fs::create_symlink("nowhere", snapshots_ / "link");
  fs::create_directory(snapshots_ / "dir");
  const auto before = ListTree(dir_.path());
  for (const char* name : {"taken", "file", "link", "dir"}) {
    EXPECT_MSB_ERROR(CreateArtifact(ctx_, Spec(name)), ErrorKind::kSnapshotAlreadyExists,
                     "/snapshots/" + std::string(name) + " exists");
  }
  EXPECT_EQ(ListTree(dir_.path()), before);
}

TEST_F(StoreCreateTest, RefusesAnExistingDestinationBeforeReadingTheUpper) {
  CreateArtifact(ctx_, Spec("taken"));
  fs::remove(upper_);
  EXPECT_MSB_ERROR(CreateArtifact(ctx_, Spec("taken")), ErrorKind::kSnapshotAlreadyExists,
                   "/snapshots/taken exists");
}

TEST_F(StoreCreateTest, ReplacesAnArtifactWhenForced) {
  const Artifact old = CreateArtifact(ctx_, Spec("base"));
  test::WriteFile(old.path / "extra", "of the old one");
  test::PatchFile(upper_, 0, "changed");
  NewArtifact spec = Spec("base");
  spec.manifest.labels = {{"stage", "two"}};
  spec.force = true;
  const Artifact made = CreateArtifact(ctx_, std::move(spec));
  EXPECT_NE(made.manifest.digest, old.manifest.digest);
  EXPECT_EQ(OpenNamed(ctx_, snapshots_, "base").artifact.manifest.labels.at("stage"), "two");
  EXPECT_EQ(test::ReadFile(made.path / "upper.ext4"), test::ReadFile(upper_));
  EXPECT_EQ(ListTree(snapshots_).size(), 3U);
}

TEST_F(StoreCreateTest, MakesANewArtifactWhenForcedWithoutNeed) {
  NewArtifact spec = Spec("base");
  spec.force = true;
  CreateArtifact(ctx_, std::move(spec));
  EXPECT_NO_THROW(OpenNamed(ctx_, snapshots_, "base"));
  EXPECT_EQ(ListTree(snapshots_).size(), 3U);
}

TEST_F(StoreCreateTest, ReplacesADamagedArtifactWhenForced) {
  test::WriteFile(snapshots_ / "base" / "snapshot.json", "damaged");
  NewArtifact spec = Spec("base");
  spec.force = true;
  CreateArtifact(ctx_, std::move(spec));
  EXPECT_NO_THROW(OpenNamed(ctx_, snapshots_, "base"));
}

TEST_F(StoreCreateTest, DoesNotReplaceOtherFilesEvenWithForce) {
  test::WriteFile(snapshots_ / "thesis" / "chapter-1", "precious");
  test::WriteFile(snapshots_ / "file", "precious");
  fs::create_directory(snapshots_ / "empty");
  const auto before = ListTree(dir_.path());
  for (const char* name : {"thesis", "file", "empty"}) {
    NewArtifact spec = Spec(name);
    spec.force = true;
    EXPECT_MSB_ERROR(CreateArtifact(ctx_, std::move(spec)), ErrorKind::kSnapshotAlreadyExists,
                     "/snapshots/" + std::string(name) + " exists", "not a snapshot",
                     "choose another name");
  }
  EXPECT_EQ(ListTree(dir_.path()), before);
}

TEST_F(StoreCreateTest, DoesNotReplaceADestinationCreatedMeanwhile) {
  for (const bool force : {false, true}) {
    const fs::path target = snapshots_ / (force ? "forced" : "plain");
    NewArtifact spec = Spec(target.filename());
    spec.force = force;
    spec.confirm = [&] { test::WriteFile(target / "chapter-1", "precious"); };
    EXPECT_MSB_ERROR(CreateArtifact(ctx_, std::move(spec)), ErrorKind::kSnapshotAlreadyExists,
                     target.filename().native() + " exists and is a directory, not a snapshot",
                     "choose another name");
    EXPECT_EQ(test::ReadFile(target / "chapter-1"), "precious");
  }
  EXPECT_EQ(ListTree(snapshots_).size(), 4U);
}

TEST_F(StoreCreateTest, ForceDoesNotReplaceALinkToAnArtifact) {
  const Artifact old = CreateArtifact(ctx_, Spec("old"));
  fs::create_directory_symlink("old", snapshots_ / "link");
  const auto before = ListTree(snapshots_);
  NewArtifact spec = Spec("link");
  spec.force = true;
  EXPECT_MSB_ERROR(CreateArtifact(ctx_, std::move(spec)), ErrorKind::kSnapshotAlreadyExists,
                   "/link exists and is a symbolic link, not a snapshot", "choose another name");
  EXPECT_EQ(ListTree(snapshots_), before);
}

TEST_F(StoreCreateTest, ForceAsksAboutTheArtifactThatItReplaces) {
  const Artifact old = CreateArtifact(ctx_, Spec("base"));
  const auto before = ListTree(snapshots_);
  NewArtifact spec = Spec("base");
  spec.force = true;
  spec.confirm_replace = [&](const Artifact& replaced) {
    EXPECT_EQ(replaced.manifest.digest, old.manifest.digest);
    throw Error(ErrorKind::kSnapshotHasChildren, "it has children");
  };
  EXPECT_MSB_ERROR(CreateArtifact(ctx_, std::move(spec)), ErrorKind::kSnapshotHasChildren,
                   "it has children");
  EXPECT_EQ(ListTree(snapshots_), before);
}

TEST_F(StoreCreateTest, RefusesAnUpperThatChangesWhileItIsCopied) {
  const std::vector<std::function<void()>> changes = {
      [&] { test::PatchFile(upper_, kSize - 1, "!"); },
      [&] { fs::resize_file(upper_, kSize + 4096); }, [&] { fs::rename(upper_, dir_ / "moved"); },
      // The same content and time in another file.
      [&] {
        fs::copy_file(upper_, dir_ / "copy");
        fs::last_write_time(dir_ / "copy", fs::last_write_time(upper_));
        fs::rename(dir_ / "copy", upper_);
      }};
  for (const auto& change : changes) {
    bool done = false;
    const Context ctx = ctx_.WithProgress([&](const Progress&) {
      if (!done) change();
      done = true;
    });
    EXPECT_MSB_ERROR(CreateArtifact(ctx, Spec("base")), ErrorKind::kSnapshotSandboxRunning,
                     "/upper.ext4 changed while it was copied",
                     "stop the program that writes to it");
    EXPECT_TRUE(done);
    EXPECT_EQ(ListTree(snapshots_).size(), 0U);
    if (fs::exists(dir_ / "moved")) fs::rename(dir_ / "moved", upper_);
  }
}

// The two blocks that the program writes must both be old or both be new in a snapshot.
TEST_F(StoreCreateTest, RefusesAnUpperWhoseWriterKeepsTheModificationTime) {
  for (const bool staged : {false, true}) {
    NewArtifact spec = Spec("base");
    spec.integrity_algorithm = kFileMerkle;
    int writes = 0;
    const Context ctx = ctx_.WithProgress([&](const Progress&) {
      test::PatchFileKeepingTime(upper_, 9 << 20, std::to_string(++writes));
    });
    EXPECT_MSB_ERROR(staged ? (StageArtifact(ctx, spec), 0) : (CreateArtifact(ctx, spec), 0),
                     ErrorKind::kSnapshotSandboxRunning, "/upper.ext4 kept changing",
                     "stop the program that writes to it");
    EXPECT_GT(writes, 1);
    EXPECT_EQ(ListTree(snapshots_).size(), 0U);
  }
}

TEST_F(StoreCreateTest, CopiesAnUpperAgainThatIsLinkedMeanwhile) {
  bool done = false;
  const Context ctx = ctx_.WithProgress([&](const Progress&) {
    if (std::exchange(done, true)) return;
    test::PatchFileKeepingTime(upper_, 9 << 20, "new");
    fs::create_hard_link(upper_, dir_ / "link");
  });
  const Artifact made = CreateArtifact(ctx, Spec("base"));
  EXPECT_TRUE(done);
  EXPECT_EQ(test::ReadFile(made.path / "upper.ext4"), test::ReadFile(upper_));
  EXPECT_EQ(ListTree(made.path).size(), 2U);
}

TEST_F(StoreCreateTest, LeavesNothingWhenItIsNotConfirmed) {
  NewArtifact spec = Spec("base");
  spec.confirm = [&] {
    EXPECT_FALSE(fs::exists(snapshots_ / "base"));
    throw std::runtime_error("started meanwhile");
  };
  EXPECT_THROW(CreateArtifact(ctx_, std::move(spec)), std::runtime_error);
  EXPECT_EQ(ListTree(snapshots_).size(), 0U);
}

TEST_F(StoreCreateTest, KeepsTheOldArtifactWhenAForcedOneIsNotConfirmed) {
  CreateArtifact(ctx_, Spec("base"));
  const auto before = ListTree(dir_.path());
  NewArtifact spec = Spec("base");
  spec.force = true;
  spec.confirm = [] { throw std::runtime_error("started meanwhile"); };
  EXPECT_THROW(CreateArtifact(ctx_, std::move(spec)), std::runtime_error);
  EXPECT_EQ(ListTree(dir_.path()), before);
}

TEST_F(StoreCreateTest, LeavesNothingWhenItIsCancelled) {
  const auto before = ListTree(dir_.path());
  const auto [cancelled, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(CreateArtifact(cancelled, Spec("base")), ErrorKind::kCancelled, "cancelled");
  for (const bool late : {false, true}) {
    const auto [ctx, cancel_now] = ctx_.WithCancel();
    NewArtifact spec = Spec("base");
    spec.integrity_algorithm = kFileMerkle;
    if (late) spec.confirm = cancel_now;
    const Context reporting =
        ctx.WithProgress([late, stop = cancel_now](const Progress&) { late ? void() : stop(); });
    EXPECT_MSB_ERROR(CreateArtifact(reporting, std::move(spec)), ErrorKind::kCancelled,
                     "cancelled");
  }
  EXPECT_EQ(ListTree(dir_.path()), before);
}

TEST_F(StoreCreateTest, MakesMissingParentsAndRemovesThemOnFailure) {
  NewArtifact spec = Spec("a");
  spec.destination = dir_ / "made/for/it";
  spec.confirm = [] { throw Error(ErrorKind::kSnapshotSandboxRunning, "it runs"); };
  EXPECT_MSB_ERROR(CreateArtifact(ctx_, spec), ErrorKind::kSnapshotSandboxRunning, "it runs");
  EXPECT_FALSE(fs::exists(dir_ / "made"));
  spec.confirm = {};
  EXPECT_EQ(CreateArtifact(ctx_, std::move(spec)).path, dir_ / "made/for/it");
}

TEST_F(StoreCreateTest, RefusesAnUpperThatIsNoRegularFile) {
  fs::rename(upper_, dir_ / "elsewhere");
  EXPECT_MSB_ERROR(CreateArtifact(ctx_, Spec("base")), ErrorKind::kIO,
                   "/upper.ext4 must be a regular file, but is absent", "restore it");
  fs::create_symlink("elsewhere", upper_);
  EXPECT_MSB_ERROR(CreateArtifact(ctx_, Spec("base")), ErrorKind::kIO,
                   "/upper.ext4 must be a regular file, but is a symbolic link", "restore it");
  fs::remove(upper_);
  ASSERT_EQ(mkfifo(upper_.c_str(), 0600), 0);
  EXPECT_MSB_ERROR(CreateArtifact(ctx_, Spec("base")), ErrorKind::kIO,
                   "/upper.ext4 must be a regular file, but is a special file", "restore it");
  EXPECT_EQ(ListTree(snapshots_).size(), 0U);
}

TEST_F(StoreCreateTest, RefusesAnIntegrityAlgorithmThatItDoesNotKnow) {
  NewArtifact spec = Spec("base");
  spec.integrity_algorithm = "md5";
  EXPECT_MSB_ERROR(CreateArtifact(ctx_, std::move(spec)), ErrorKind::kUnsupportedOperation,
                   "integrity algorithm 'md5' is not supported: it must be sha256, ");
  EXPECT_EQ(ListTree(snapshots_).size(), 0U);
}

}  // namespace
}  // namespace msb::artifact
