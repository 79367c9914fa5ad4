// SPDX-License-Identifier: Apache-2.0
//
// Opening artifacts, walking directories of artifacts, and verifying artifacts.

#include "src/artifact/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "src/artifact/disk_chain.h"
#include "tests/support/support.h"

namespace msb::artifact {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::uint64_t kDiskSize = 300'000;

class StoreTest : public testing::Test {
 protected:
  // Writes an artifact by hand.
  fs::path Make(const std::string& name, ManifestForm form = ManifestForm::kDescriptor) {
    Manifest manifest;
    manifest.form = form;
    manifest.created_at = "2026-11-23T12:59:23Z";
    manifest.created = *base::ParseRfc3339(manifest.created_at);
    manifest.image = {"fixture:1", "sha256:" + std::string(64, 'a')};
    manifest.labels = {{"name", name}};
    manifest.fstype = "ext4";
    manifest.size_bytes = kDiskSize;
    manifest.layers = {{.file = "upper.ext4", .file_bytes = kDiskSize}};
    const fs::path path = snapshots_ / name;
    test::WriteFile(path / ManifestFileName(form), EncodeManifest(manifest));
    test::MakeSparseFile(path / "upper.ext4", kDiskSize, {{4096, test::Noise(9000, 1)}});
    return path;
  }

  // Unpacks a group of two members, as release 0.7.2 wrote it.
  fs::path MakeGroup() {
    fs::rename(test::UnpackFixtureHome("0.7.2", dir_ / "fixture") / "snapshots" / "baseline",
               snapshots_ / "baseline");
    return snapshots_ / "baseline";
  }

  // Verifies the first layer of the artifact at path.
  static std::optional<Integrity> Verify(const Context& ctx, const fs::path& path) {
    OpenedArtifact opened = OpenAt(ctx, path);
    std::vector<DiskFile> files;
    files.push_back(FileOfLayer(opened, 0));
    return VerifyFiles(ctx, files).at(0);
  }

  static Artifact OpenIn(const fs::path& snapshots_dir, const std::string& name) {
    return OpenNamed(Context::Background(), snapshots_dir, name).artifact;
  }
  Artifact Open(const std::string& name) const { return OpenIn(snapshots_, name); }

  // Returns the names of the artifacts that a walk finds. told_ has the errors that it reports.
  std::vector<std::string> Walk(const fs::path& dir) {
    std::vector<std::string> names;
    told_.clear();
    WalkArtifacts(
        Context::Background(), dir,
        [&](const Artifact& artifact) { names.push_back(artifact.Name()); },
        [&](const Error& error) { told_.emplace_back(error.what()); });
    return names;
  }

  test::TempDir dir_;
  const fs::path snapshots_ = MakeDir(dir_ / "snapshots");
  std::vector<std::string> told_;

 private:
  static fs::path MakeDir(fs::path path) {
    fs::create_directories(path);
    return path;
  }
};

const std::string kPlainId = "snap_e38b7af9964bdf5ba2de63f9db86d0a8";
const std::string kLabelledId = "snap_d6985e229700c6f3a1bb5d54773a53e0";

TEST_F(StoreTest, DistinguishesPathsFromNames) {
  for (const char* path : {"/a", "./a", "a/b", ".a", "..", "~", "~/a", "a/", ".a:b"}) {
    EXPECT_TRUE(IsPath(path)) << path;
  }
  for (const char* name : {"a", "a.b", "a~", "group:name", "", "sha256:0"}) {
    EXPECT_FALSE(IsPath(name)) << name;
  }
}

TEST_F(StoreTest, OpensAnArtifactByItsNameAndByItsPath) {
  for (const ManifestForm form : {ManifestForm::kManifest, ManifestForm::kDescriptor}) {
    const fs::path path = Make("base", form);
    const Artifact named = Open("base");
    EXPECT_EQ(named.path, path);
    EXPECT_EQ(named.Name(), "base");
    EXPECT_EQ(named.manifest.form, form);
    EXPECT_EQ(named.manifest.labels.at("name"), "base");
    for (const std::string& spelled :
         {path.native(), path.native() + "/", (snapshots_ / "." / "x" / ".." / "base").native()}) {
      EXPECT_EQ(Open(spelled).path, path);
      EXPECT_EQ(Open(spelled).manifest.digest, named.manifest.digest);
    }
    EXPECT_EQ(OpenArtifactAt(path).manifest.digest, named.manifest.digest);
    fs::remove_all(path);
  }
}

TEST_F(StoreTest, OpensTheArtifactsOfEachRelease) {
  for (const std::string release : {"0.6.6", "0.6.18"}) {
    const fs::path home = test::UnpackFixtureHome(release, dir_ / release);
    EXPECT_EQ(OpenIn(home / "snapshots", "plain").manifest.size_bytes, 16777216U);
    const Artifact labelled = OpenIn(home / "snapshots", "labelled");
    EXPECT_EQ(labelled.manifest.labels.at("owner"), "fixture");
    EXPECT_NO_THROW(Verify(Context::Background(), labelled.path).value());
  }
}

TEST_F(StoreTest, OpensAMemberOfAGroupByItsNameAndTheHeadByThatOfTheGroup) {
  const fs::path group = MakeGroup();
  const Artifact plain = Open("baseline:plain");
  EXPECT_EQ(plain.path, group / kPlainId);
  EXPECT_EQ(plain.Name(), "plain");
  ASSERT_TRUE(plain.member);
  EXPECT_EQ(plain.member->group, "baseline");
  EXPECT_EQ(plain.member->group_path, group);
  EXPECT_TRUE(plain.manifest.labels.empty());
  for (const std::string& head :
       {std::string("baseline"), std::string("baseline:labelled"), group.native()}) {
    const Artifact labelled = Open(head);
    EXPECT_EQ(labelled.path, group / kLabelledId);
    EXPECT_EQ(labelled.Name(), "labelled");
    EXPECT_EQ(labelled.manifest.labels.at("stage"), "post-deps");
    EXPECT_NO_THROW(Verify(Context::Background(), labelled.path).value());
  }
}

TEST_F(StoreTest, OpensAMemberThoughAnotherIsDamaged) {
  const fs::path group = MakeGroup();
  test::WriteFile(group / kLabelledId / "group-member.json", "{");
  EXPECT_EQ(Open("baseline:plain").path, group / kPlainId);
  EXPECT_MSB_ERROR(Open("baseline:labelled"), ErrorKind::kSnapshotIntegrity, "malformed manifest ",
                   "/group-member.json", "invalid JSON at byte 2");
}

TEST_F(StoreTest, FindsTheLayerOfAMigratedSnapshotBesideTheManifest) {
  const fs::path member = MakeGroup() / kPlainId;
  fs::rename(member / "layers" / "layer_be55d6e64092bef595e37119718a300e.raw",
             member / "upper.ext4");
  EXPECT_EQ(Open("baseline:plain").manifest.layers.at(0).file, "upper.ext4");
}

TEST_F(StoreTest, DoesNotFindAbsentArtifacts) {
  Make("base");
  MakeGroup();
  fs::create_directory(snapshots_ / "empty");
  test::WriteFile(dir_ / "file", "");
  const std::vector<std::pair<std::string, std::string>> names = {
      {"gone", "/snapshots/gone"},
      {dir_ / "gone", "/gone"},
      {dir_ / "file", "/file"},
      {dir_ / "file" / "x", "/file/x"},
      {"empty", "/snapshots/empty"},
      {snapshots_ / "empty", "/snapshots/empty"},
      {"baseline:gone", "/baseline has no snapshot 'gone'"},
      {"gone:plain", "/snapshots/gone"},
      {"base:plain", "/base has no snapshot 'plain'"},
      {"baseline:", "/baseline has no snapshot ''"},
      {std::string(255, 'n'), "/snapshots/nnn"}};
  for (const auto& [name, missing] : names) {
    EXPECT_MSB_ERROR(Open(name), ErrorKind::kSnapshotNotFound, "snapshot", missing);
  }
  EXPECT_MSB_ERROR(OpenIn(dir_ / "no-snapshots", "base"), ErrorKind::kSnapshotNotFound,
                   "no snapshot at ", "/no-snapshots/base");
}

TEST_F(StoreTest, RefusesInvalidNames) {
  for (const std::string& name : {std::string(), std::string("a\\b"), std::string(":plain"),
                                  std::string(256, 'n'), std::string("a\nb")}) {
    EXPECT_MSB_ERROR(Open(name), ErrorKind::kInvalidConfig, "snapshot name '",
                     "is invalid: it must not ");
  }
}

TEST_F(StoreTest, RefusesAnUpperThatDiffersFromTheManifest) {
  const fs::path path = Make("base");
  const fs::path upper = path / "upper.ext4";
  const auto refused = [&](const char* found) {
    EXPECT_MSB_ERROR(Open("base"), ErrorKind::kSnapshotIntegrity, "/base/upper.ext4 must ", found);
    EXPECT_MSB_ERROR(Open(path.native()), ErrorKind::kSnapshotIntegrity, "/base/upper.ext4 must ",
                     found);
  };
  fs::resize_file(upper, kDiskSize - 1);
  refused("but has 299999");
  fs::resize_file(upper, kDiskSize + 1);
  refused("but has 300001");
  fs::resize_file(upper, kDiskSize);
  EXPECT_NO_THROW(Open("base"));
  fs::rename(upper, dir_ / "elsewhere");
  refused("but is absent");
  fs::create_symlink(dir_ / "elsewhere", upper);
  refused("but is a symbolic link");
  fs::remove(upper);
  fs::create_directory(upper);
  refused("but is a directory");
  fs::remove(upper);
  // To open it for reading would wait forever for a writer.
  ASSERT_EQ(mkfifo(upper.c_str(), 0600), 0);
  refused("but is a special file");
}

TEST_F(StoreTest, RefusesALayerThatIsReachedThroughALink) {
  const fs::path layers = MakeGroup() / kPlainId / "layers";
  fs::rename(layers, dir_ / "layers");
  fs::create_directory_symlink(dir_ / "layers", layers);
  EXPECT_MSB_ERROR(Open("baseline:plain"), ErrorKind::kSnapshotIntegrity,
                   ".raw must be a regular file, but is absent");
}

TEST_F(StoreTest, RefusesAManifestThatIsNoRegularFileOfReasonableLength) {
  const fs::path path = Make("base");
  for (const ManifestForm form : {ManifestForm::kManifest, ManifestForm::kDescriptor}) {
    const fs::path manifest = path / ManifestFileName(form);
    fs::remove(path / "snapshot.json");
    const auto refused = [&](const char* found) {
      EXPECT_MSB_ERROR(Open("base"), ErrorKind::kSnapshotIntegrity,
                       "/base/" + manifest.filename().native(), found);
      fs::remove(manifest);
    };
    fs::create_symlink("upper.ext4", manifest);
    refused("but is a symbolic link");
    fs::create_symlink("nowhere", manifest);
    refused("but is a symbolic link");
    fs::create_directory(manifest);
    refused("but is a directory");
    ASSERT_EQ(mkfifo(manifest.c_str(), 0600), 0);
    refused("but is a special file");
    test::WriteFile(manifest, std::string(10 << 20, ' '));
    refused("is longer than 8388608 bytes");
    test::MakeSparseFile(manifest, std::uint64_t{1} << 40, {});
    refused("is longer than 8388608 bytes");
    test::WriteFile(manifest, "");
    refused("invalid JSON at byte 1");
  }
}

TEST_F(StoreTest, CountsTheNewerManifestWhereThereAreTwo) {
  const fs::path path = Make("base", ManifestForm::kManifest);
  const std::string old_digest = Open("base").manifest.digest;
  EXPECT_EQ(Make("base"), path);
  EXPECT_EQ(Open("base").manifest.form, ManifestForm::kDescriptor);
  EXPECT_NE(Open("base").manifest.digest, old_digest);
}

TEST_F(StoreTest, RefusesALinkInPlaceOfANamedArtifactButFollowsThePathOfAUser) {
  const fs::path path = Make("base");
  fs::create_directory_symlink(path, snapshots_ / "link");
  EXPECT_MSB_ERROR(Open("link"), ErrorKind::kSnapshotIntegrity,
                   "/link must be a directory, but is a symbolic link",
                   "give the path of the snapshot that it points to");
  EXPECT_EQ(Open((snapshots_ / "link").native()).manifest.digest, Open("base").manifest.digest);
  test::WriteFile(snapshots_ / "file", "");
  EXPECT_MSB_ERROR(Open("file"), ErrorKind::kSnapshotIntegrity,
                   "/file must be a directory, but is a regular file", "move it away");
}

TEST_F(StoreTest, RefusesAGroupWhoseHeadIsNotInIt) {
  const fs::path group = MakeGroup();
  Make("base");
  for (const std::string& head : {std::string("../base"), std::string(".."), std::string("gone"),
                                  (snapshots_ / "base").native()}) {
    test::WriteFile(group / "group.json",
                    R"({"schema":"microsandbox.snapshot-group/1","head":")" + head + "\"}");
    EXPECT_MSB_ERROR(Open("baseline"), ErrorKind::kSnapshotIntegrity, "/baseline", head);
  }
}

TEST_F(StoreTest, RecognizesDirectoriesThatHoldAnArtifact) {
  EXPECT_TRUE(HoldsArtifact(Make("base")));
  EXPECT_TRUE(HoldsArtifact(Make("old", ManifestForm::kManifest)));
  test::WriteFile(snapshots_ / "base" / "snapshot.json", "not even JSON");
  EXPECT_TRUE(HoldsArtifact(snapshots_ / "base"));
  EXPECT_FALSE(HoldsArtifact(snapshots_));
  EXPECT_FALSE(HoldsArtifact(snapshots_ / "gone"));
  EXPECT_FALSE(HoldsArtifact(snapshots_ / "base" / "snapshot.json"));
}

TEST_F(StoreTest, WalksOverArtifactsAndGroupsOnly) {
  Make("b");
  Make("a", ManifestForm::kManifest);
  Make(".hidden");
  MakeGroup();
  fs::create_directory_symlink(snapshots_ / "a", snapshots_ / "link");
  fs::create_directories(snapshots_ / "empty" / "a");
  test::WriteFile(snapshots_ / "file", "");
  test::WriteFile(snapshots_ / "other" / "readme", "");
  EXPECT_THAT(Walk(snapshots_), ElementsAre("a", "b", "labelled", "plain"));
  EXPECT_THAT(told_, ElementsAre());
  EXPECT_THAT(Walk(dir_ / "gone"), ElementsAre());
}

TEST_F(StoreTest, ContinuesPastMalformedArtifactsAndReportsThem) {
  Make("good");
  test::WriteFile(Make("bad") / "snapshot.json", "{}");
  fs::remove(Make("no-upper") / "upper.ext4");
  test::WriteFile(snapshots_ / "odd-group" / "group.json", "[]");
  EXPECT_THAT(Walk(snapshots_), ElementsAre("good"));
  EXPECT_THAT(told_, ElementsAre(HasSubstr("bad/snapshot.json"), HasSubstr("no-upper/upper.ext4"),
                                 HasSubstr("odd-group/group.json")));
}

TEST_F(StoreTest, DoesNotEnterAGroupInAGroup) {
  const fs::path group = MakeGroup();
  fs::create_directory(group / "inner");
  fs::copy_file(group / "group.json", group / "inner" / "group.json");
  fs::rename(group / kPlainId, group / "inner" / kPlainId);
  EXPECT_THAT(Walk(snapshots_), ElementsAre("labelled"));
}

TEST_F(StoreTest, EndsAWalkThatIsCancelled) {
  Make("a");
  const auto [ctx, cancel] = Context::Background().WithCancel();
  cancel();
  EXPECT_MSB_ERROR(
      WalkArtifacts(
          ctx, snapshots_, [](const Artifact&) { ADD_FAILURE(); }, [](const Error&) {}),
      ErrorKind::kCancelled, "cancelled");
}

TEST_F(StoreTest, FindsTheOneFlippedByteWhenItVerifies) {
  const fs::path home = test::UnpackFixtureHome("0.6.18", dir_ / "home");
  const Artifact artifact = OpenIn(home / "snapshots", "labelled");
  const Layer& layer = artifact.manifest.layers.at(0);
  const Context ctx = Context::Background();
  EXPECT_EQ(Verify(ctx, artifact.path), layer.integrity);
  const fs::path upper = artifact.path / "upper.ext4";
  const auto [offset, length] = test::ExtentsOf(upper).back();
  const char last = test::ReadFile(upper).at(offset + length - 1);
  test::PatchFile(upper, offset + length - 1, std::string(1, static_cast<char>(last ^ 1)));
  EXPECT_MSB_ERROR(Verify(ctx, artifact.path), ErrorKind::kSnapshotIntegrity,
                   "/labelled/upper.ext4 is damaged: expected msb-file-merkle-blake3-v1",
                   "but found blake3:");
  test::PatchFile(upper, offset + length - 1, std::string(1, last));
  EXPECT_NO_THROW(Verify(ctx, artifact.path));
}

TEST_F(StoreTest, VerifiesNothingWhereNothingIsRecorded) {
  Make("base");
  const Artifact artifact = Open("base");
  EXPECT_EQ(Verify(Context::Background(), artifact.path), std::nullopt);
}

TEST_F(StoreTest, RefusesAFileThatChangesWhileItIsVerified) {
  const fs::path home = test::UnpackFixtureHome("0.6.18", dir_ / "home");
  const Artifact artifact = OpenIn(home / "snapshots", "labelled");
  const fs::path upper = artifact.path / "upper.ext4";
  fs::last_write_time(upper, fs::file_time_type::clock::now() - std::chrono::hours(1));
  const std::string start = test::ReadFile(upper).substr(0, 1);
  // Called after everything was read, too late to change the hash.
  const Context ctx = Context::Background().WithProgress(
      [&](const Progress&) { test::PatchFile(upper, 0, start); });
  EXPECT_MSB_ERROR(Verify(ctx, artifact.path), ErrorKind::kSnapshotIntegrity,
                   "/labelled/upper.ext4 changed while it was verified",
                   "stop the program that writes to it");
}

TEST_F(StoreTest, RefusesToVerifyWithAnUnknownAlgorithm) {
  OpenedArtifact opened = OpenAt(Context::Background(), Make("base", ManifestForm::kManifest));
  std::vector<DiskFile> files;
  files.push_back(FileOfLayer(opened, 0));
  files[0].integrity = {"crc32", "crc32:0"};
  EXPECT_MSB_ERROR(VerifyFiles(Context::Background(), files), ErrorKind::kUnsupportedOperation,
                   "integrity algorithm 'crc32' is not supported: it must be sha256, ");
}

}  // namespace
}  // namespace msb::artifact
