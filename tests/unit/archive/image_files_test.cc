// SPDX-License-Identifier: Apache-2.0
//
// FilesOfImage: the files of an image that is exported.

#include "src/archive/image_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"
#include "tests/unit/archive/image_sample.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAreArray;

class FilesOfImageTest : public testing::Test {
 protected:
  void ExpectRefusal(const Image& image, ErrorKind kind, const std::string& part) {
    const auto before = test::ListTree(dir_.path());
    try {
      FilesOfImage(cache_, image);
      ADD_FAILURE() << "no error that says " << part;
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), ErrorKindName(kind)) << e.what();
      EXPECT_THAT(e.what(), HasSubstr(part));
    }
    EXPECT_EQ(test::ListTree(dir_.path()), before);
  }

  const test::TempDir dir_;
  const fs::path cache_ = dir_ / "cache";
};

TEST_F(FilesOfImageTest, AreThoseThatReleasesKeep) {
  const std::string digest = "1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac";
  for (const std::string& release : test::FixtureReleases()) {
    const fs::path cache = test::UnpackFixtureHome(release, dir_ / release) / "cache";
    EXPECT_THAT(
        FilesOfImage(cache, {"fixture:1", "sha256:" + digest}),
        ElementsAre(
            "manifests/760bb9b210461349d8d24a0f1b916cccd062d4200229b0758726ffbc4dd2bdea.json",
            "fsmeta/sha256_" + digest + ".erofs", "vmdk/sha256_" + digest + ".vmdk",
            "layers/"
            "sha256_584329b971e2b15dffc87d6295a65e3972b959c35fc8a456a312239995b6fff3.erofs"));
  }
}

TEST_F(FilesOfImageTest, NamesAFileOnceAndNoLocksAndNoOtherImages) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(cache_);
  MakeOciImage("b", {"three"}).Write(cache_);
  test::WriteFile(cache_ / (sample.layer + ".lock"), "");
  const auto files = FilesOfImage(cache_, sample.image);
  EXPECT_THAT(files, UnorderedElementsAreArray(sample.Names()));
  EXPECT_EQ(files[0], sample.metadata);
}

TEST_F(FilesOfImageTest, FindsDiskImagesRegardlessOfTheirReference) {
  for (const ImageSample& sample :
       {MakeDiskImage("a disk", ".raw"), MakeDiskImage(test::Qcow2Sample("disk"), ".qcow2")}) {
    sample.Write(cache_);
    EXPECT_EQ(FilesOfImage(cache_, sample.image), sample.Names());
    // An image from a registry may have the same name.
    MakeOciImage(sample.image.ref).Write(cache_);
    EXPECT_EQ(FilesOfImage(cache_, sample.image), sample.Names());
  }
}

TEST_F(FilesOfImageTest, ReportsAnAbsentImage) {
  const ImageSample sample = MakeOciImage("a");
  ExpectRefusal(sample.image, ErrorKind::kSnapshotImageMissing, ".json is missing");
  fs::create_directories(cache_ / "manifests");
  ExpectRefusal(sample.image, ErrorKind::kSnapshotImageMissing, sample.metadata);
  for (const std::string& file : sample.Names()) {
    sample.Write(cache_);
    fs::remove(cache_ / file);
    ExpectRefusal(sample.image, ErrorKind::kSnapshotImageMissing,
                  file + " is missing; remove the image and add it again");
  }
  sample.Write(cache_);
  EXPECT_EQ(FilesOfImage(cache_, sample.image).size(), sample.files.size());
}

TEST_F(FilesOfImageTest, ReportsAnImageThatTheTagNoLongerNames) {
  const ImageSample before = MakeOciImage("a", {"old"});
  before.Write(cache_);
  MakeOciImage("a", {"new"}).Write(cache_);
  ExpectRefusal(before.image, ErrorKind::kSnapshotImageMissing, "moved");
}

TEST_F(FilesOfImageTest, ReportsAnImageWithoutASha256) {
  for (const std::string& digest : {std::string("sha256:../../etc/shadow"), std::string(),
                                    "sha512:" + std::string(128, 'a'), std::string("sha256")}) {
    ExpectRefusal({"a", digest}, ErrorKind::kSnapshotImageMissing, "64 lower-case hex digits");
  }
}

TEST_F(FilesOfImageTest, RefusesLinksAndSpecialFiles) {
  const ImageSample sample = MakeOciImage("a");
  for (const std::string& file : sample.Names()) {
    sample.Write(cache_);
    fs::rename(cache_ / file, dir_ / "moved");
    fs::create_symlink(dir_ / "moved", cache_ / file);
    ExpectRefusal(sample.image, ErrorKind::kSnapshotIntegrity, "is a symbolic link");
    fs::remove(cache_ / file);
    ASSERT_EQ(mkfifo((cache_ / file).c_str(), 0600), 0);
    ExpectRefusal(sample.image, ErrorKind::kSnapshotIntegrity, "is a special file");
    fs::remove(cache_ / file);
    fs::create_directory(cache_ / file);
    ExpectRefusal(sample.image, ErrorKind::kSnapshotIntegrity, "is a directory");
    fs::remove(cache_ / file);
  }
  sample.Write(cache_);
  fs::rename(cache_ / "layers", dir_ / "layers");
  fs::create_directory_symlink(dir_ / "layers", cache_ / "layers");
  ExpectRefusal(sample.image, ErrorKind::kSnapshotIntegrity, "is a symbolic link");
}

TEST_F(FilesOfImageTest, RefusesDamagedFiles) {
  const ImageSample sample = MakeOciImage("a");
  const std::vector<std::pair<std::string, std::string>> damages = {
      {sample.metadata, "{}"},
      {sample.metadata, std::string((8 << 20) + 1, ' ')},
      {sample.vmdk, ""},
      {sample.vmdk, std::string((1 << 20) + 1, '#')},
      {sample.vmdk,
       Replaced(sample.files.at(sample.vmdk), kOtherCache + "/" + sample.layer, "/etc/shadow")},
      {sample.vmdk, Replaced(sample.files.at(sample.vmdk), sample.layer, sample.fsmeta)},
      {sample.vmdk,
       MakeOciImage("a", {"one", "two"}).files.at(MakeOciImage("a", {"one", "two"}).vmdk)},
      {sample.layer, std::string(512, 'x')},
      {sample.fsmeta, ""}};
  for (const auto& [file, content] : damages) {
    sample.Write(cache_);
    test::WriteFile(cache_ / file, content);
    // If a file system has another size, the VMDK does not match it.
    const bool is_text = file == sample.metadata || file == sample.vmdk;
    ExpectRefusal(sample.image, ErrorKind::kSnapshotIntegrity, is_text ? file : sample.vmdk);
  }
}

}  // namespace
}  // namespace msb::archive
