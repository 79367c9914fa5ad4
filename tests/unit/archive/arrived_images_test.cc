// SPDX-License-Identifier: Apache-2.0
//
// ArrivedImages: the files of images that are imported.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <utility>

#include "src/archive/image_files.h"
#include "src/base/file.h"
#include "src/base/lock.h"
#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"
#include "tests/support/syscall_tracer.h"
#include "tests/unit/archive/image_sample.h"

namespace msb::archive {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::UnorderedElementsAreArray;

class ArrivedImagesTest : public testing::Test {
 protected:
  ArrivedImages Arrived(const std::vector<std::string>& files) const {
    return {staged_, files, cache_, ArchiveWords()};
  }
  void Import(const ImageSample& sample) const {
    ArrivedImages images = Arrived(sample.Names());
    images.Check(ctx_, {sample.image});
    images.Install(ctx_);
  }

  // Expects Check to refuse these files with a message that contains part, and to change nothing.
  void ExpectRefusal(const std::vector<std::string>& files, const std::vector<Image>& images,
                     const std::string& part) const {
    const auto before = test::ListTree(dir_.path());
    try {
      Arrived(files).Check(ctx_, images);
      ADD_FAILURE() << "no error that says " << part;
    } catch (const Error& e) {
      EXPECT_EQ(ErrorKindName(e.kind()), "SnapshotIntegrity") << e.what();
      EXPECT_THAT(e.what(), HasSubstr(part));
    }
    EXPECT_EQ(test::ListTree(dir_.path()), before);
  }

  // Expects the cache to have these files, with a VMDK of its own, and nothing else.
  void ExpectInstalled(const ImageSample& sample) const {
    EXPECT_THAT(FilesOfImage(cache_, sample.image), UnorderedElementsAreArray(sample.Names()));
    std::size_t count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(cache_)) {
      count += entry.is_directory() ? 0 : 1;
    }
    EXPECT_EQ(count, sample.files.size());
    for (const auto& [file, content] : sample.files) {
      EXPECT_EQ(test::ReadFile(cache_ / file), file.starts_with("vmdk/")
                                                   ? Replaced(content, kOtherCache, cache_.native())
                                                   : content);
    }
  }

  const Context ctx_ = Context::Background();
  const test::TempDir dir_;
  const fs::path staged_ = dir_ / "staged";
  const fs::path cache_ = dir_ / "home" / "cache";
};

TEST_F(ArrivedImagesTest, InstallsAnImageWhereNothingWas) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(staged_);
  Import(sample);
  ExpectInstalled(sample);
  EXPECT_THAT(test::ReadFile(cache_ / sample.vmdk), HasSubstr(cache_.native() + "/fsmeta/"));
}

TEST_F(ArrivedImagesTest, InstallsTheImageOfARelease) {
  const Image image = {"fixture:1",
                       "sha256:1fe817ecc5e7f0521598c572d45bb602f6bbe8d2fc9813b654a985ad59d231ac"};
  for (const std::string& release : test::FixtureReleases()) {
    const fs::path home = test::UnpackFixtureHome(release, dir_ / release);
    ArrivedImages images(home / "cache", FilesOfImage(home / "cache", image), cache_,
                         ArchiveWords());
    images.Check(ctx_, {image});
    images.Install(ctx_);
    EXPECT_EQ(FilesOfImage(cache_, image).size(), 4U);
  }
}

TEST_F(ArrivedImagesTest, DoesNothingWithoutFiles) {
  ArrivedImages images = Arrived({});
  images.Check(ctx_, {MakeOciImage("a").image});
  images.Install(ctx_);
  EXPECT_FALSE(fs::exists(cache_.parent_path()));
}

TEST_F(ArrivedImagesTest, InstallsSeveralImagesWithLayersInCommon) {
  ImageSample both = MakeOciImage("a", {"one", "two"});
  const ImageSample other = MakeOciImage("b", {"one", "three"});
  const ImageSample disk = MakeDiskImage("a disk", ".raw");
  both.files.insert(other.files.begin(), other.files.end());
  both.files.insert(disk.files.begin(), disk.files.end());
  both.Write(staged_);
  ArrivedImages images = Arrived(both.Names());
  // Several snapshots of one image, and snapshots of images that the archive does not have.
  images.Check(ctx_, {both.image,
                      other.image,
                      both.image,
                      disk.image,
                      disk.image,
                      MakeOciImage("c").image,
                      {"a", "odd"}});
  images.Install(ctx_);
  EXPECT_EQ(FilesOfImage(cache_, both.image).size(), 5U);
  EXPECT_EQ(FilesOfImage(cache_, other.image).size(), 5U);
  EXPECT_EQ(FilesOfImage(cache_, disk.image).size(), 1U);
}

TEST_F(ArrivedImagesTest, KeepsFilesOfTheCache) {
  const ImageSample sample = MakeOciImage("a");
  // The cache has it under another path, and with a line that another release wrote.
  const ImageSample here = MakeOciImage("a", {"one", "two", "one"}, "/home/by/another/path");
  here.Write(cache_);
  fs::remove(cache_ / sample.metadata);
  fs::remove(cache_ / sample.layer);
  test::WriteFile(cache_ / sample.vmdk, here.files.at(here.vmdk) + "# more\n");
  const std::uint64_t inode = base::StampOf(cache_ / sample.fsmeta)->inode;
  sample.Write(staged_);
  Import(sample);
  EXPECT_EQ(base::StampOf(cache_ / sample.fsmeta)->inode, inode);
  EXPECT_EQ(test::ReadFile(cache_ / sample.vmdk), here.files.at(here.vmdk) + "# more\n");
  EXPECT_EQ(FilesOfImage(cache_, sample.image).size(), sample.files.size());
}

TEST_F(ArrivedImagesTest, InstallsDiskImages) {
  for (const ImageSample& sample :
       {MakeDiskImage("a disk", ".raw"), MakeDiskImage(test::Qcow2Sample("disk"), ".qcow2")}) {
    sample.Write(staged_);
    Import(sample);
    const fs::path file = cache_ / sample.Names()[0];
    EXPECT_EQ(test::ReadFile(file), sample.files.begin()->second);
    EXPECT_EQ(fs::status(file).permissions() & fs::perms(0222), fs::perms::none);
  }
}

TEST_F(ArrivedImagesTest, HashesTheHolesOfDiskImages) {
  const std::string content = std::string(3 << 20, '\0') + "end" + std::string(1 << 20, '\0');
  const ImageSample sample = MakeDiskImage(content, ".raw");
  fs::create_directories(staged_ / "disks");
  test::MakeSparseFile(staged_ / sample.Names()[0], content.size(), {{3 << 20, "end"}});
  Import(sample);
  EXPECT_EQ(FilesOfImage(cache_, sample.image).size(), 1U);
}

TEST_F(ArrivedImagesTest, RefusesDiskImagesThatAreNot) {
  const std::string qcow2 = test::Qcow2Sample("disk");
  for (const auto& [content, suffix] :
       {std::pair(std::string("a disk"), ".qcow2"), std::pair(qcow2, ".raw")}) {
    const ImageSample sample = MakeDiskImage(content, suffix);
    sample.Write(staged_);
    ExpectRefusal(sample.Names(), {sample.image}, "format");
  }
  const ImageSample sample = MakeDiskImage("another disk", ".raw");
  test::WriteFile(staged_ / sample.Names()[0], "another disc");
  ExpectRefusal(sample.Names(), {sample.image}, "must have the digest in its name");
}

TEST_F(ArrivedImagesTest, RefusesFilesOfNoImage) {
  ImageSample sample = MakeOciImage("a");
  sample.Write(staged_);
  ExpectRefusal(sample.Names(), {}, "belongs to no image");
  ExpectRefusal(sample.Names(), {MakeOciImage("a", {"other"}).image}, "belongs to no image");
  ExpectRefusal(sample.Names(), {{"b", sample.image.manifest_digest}}, "belongs to no image");
  const std::string hex(64, 'a');
  for (const std::string& file :
       {"layers/sha256_" + hex + ".erofs", "manifests/" + hex + ".json",
        "disks/sha256_" + hex + ".raw", std::string("../../etc/cron.d/x"), std::string("x"),
        sample.layer + ".lock", std::string("/etc/passwd"), std::string()}) {
    std::vector<std::string> files = sample.Names();
    files.push_back(file);
    ExpectRefusal(files, {sample.image}, "belongs to no image");
  }
}

TEST_F(ArrivedImagesTest, RefusesAnIncompleteImage) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(cache_);  // The files in the cache are no substitute.
  for (const std::string& file : sample.Names()) {
    if (file == sample.metadata) continue;
    sample.Write(staged_);
    std::vector<std::string> files = sample.Names();
    std::erase(files, file);
    ExpectRefusal(files, {sample.image}, file);
    fs::remove(staged_ / file);
    ExpectRefusal(files, {sample.image}, file);
    ExpectRefusal(sample.Names(), {sample.image}, file);
  }
}

TEST_F(ArrivedImagesTest, RefusesDamagedImageFiles) {
  const ImageSample sample = MakeOciImage("a");
  const std::string& vmdk = sample.files.at(sample.vmdk);
  for (const auto& [file, content] : std::vector<std::pair<std::string, std::string>>{
           {sample.metadata, "{}"},
           {sample.vmdk, Replaced(vmdk, kOtherCache + "/" + sample.layer, "/etc/shadow")},
           {sample.vmdk, vmdk + "parentFileNameHint=\"/etc/shadow\"\n"}}) {
    sample.Write(staged_);
    test::WriteFile(staged_ / file, content);
    ExpectRefusal(sample.Names(), {sample.image}, file);
  }
  for (const std::string& file : sample.Names()) {
    sample.Write(staged_);
    fs::remove(staged_ / file);
    fs::create_symlink("/etc/passwd", staged_ / file);
    ExpectRefusal(sample.Names(), {sample.image}, "is a symbolic link");
    fs::remove(staged_ / file);
  }
}

TEST_F(ArrivedImagesTest, RefusesFilesThatDifferFromTheCache) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(staged_);
  for (const auto& [file, content] : sample.files) {
    fs::remove_all(cache_);
    std::string other = content;
    // The content has the same size or, for the VMDK, is valid and names the same files.
    if (file == sample.vmdk) {
      other = Replaced(content, "\n\n# The Disk", "\nRW 8 ZERO\n\n# The Disk");
    } else {
      other.back() = static_cast<char>(other.back() ^ 1);
    }
    test::WriteFile(cache_ / file, other);
    ExpectRefusal(sample.Names(), {sample.image}, file);
    fs::remove(cache_ / file);
    fs::create_symlink("/etc/passwd", cache_ / file);
    ExpectRefusal(sample.Names(), {sample.image}, "is a symbolic link");
  }
  fs::remove_all(cache_);
  Import(sample);
  ExpectInstalled(sample);
}

TEST_F(ArrivedImagesTest, RefusesACacheThatNoVmdkCanName) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(staged_);
  const auto before = test::ListTree(dir_.path());
  ArrivedImages images(staged_, sample.Names(), dir_ / "a\"b", ArchiveWords());
  EXPECT_MSB_ERROR(images.Check(ctx_, {sample.image}), ErrorKind::kUnsupportedOperation,
                   "/a\"b: ", "an absolute path in UTF-8 without quotation marks",
                   "set Config::cache_dir");
  EXPECT_EQ(test::ListTree(dir_.path()), before);
}

TEST_F(ArrivedImagesTest, NeverReplacesFilesCreatedAfterTheCheck) {
  const ImageSample sample = MakeOciImage("a");
  for (const auto& [file, content] : sample.files) {
    for (const std::string& appeared :
         {content, content + "x", content.substr(0, content.size() - 1), std::string()}) {
      fs::remove_all(cache_);
      sample.Write(staged_);
      ArrivedImages images = Arrived(sample.Names());
      images.Check(ctx_, {sample.image});
      test::WriteFile(cache_ / file, appeared);
      // A VMDK may lack the final line break.
      const bool is_vmdk = file == sample.vmdk;
      if (appeared == content || (is_vmdk && appeared.size() + 1 == content.size())) {
        images.Install(ctx_);
        EXPECT_EQ(FilesOfImage(cache_, sample.image).size(), sample.files.size());
      } else {
        EXPECT_MSB_ERROR(images.Install(ctx_), ErrorKind::kSnapshotIntegrity, cache_ / file);
        // The image is not found until it is complete.
        EXPECT_EQ(fs::exists(cache_ / sample.metadata), file == sample.metadata);
      }
      EXPECT_EQ(test::ReadFile(cache_ / file), appeared);
    }
  }
}

TEST_F(ArrivedImagesTest, LeavesNothingWhenItIsCancelled) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(staged_);
  ArrivedImages images = Arrived(sample.Names());
  images.Check(ctx_, {sample.image});
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(images.Install(ctx), ErrorKind::kCancelled, "cancelled");
  EXPECT_FALSE(fs::exists(cache_.parent_path()));
  EXPECT_MSB_ERROR(images.Check(ctx, {sample.image}), ErrorKind::kCancelled, "cancelled");
}

TEST_F(ArrivedImagesTest, WaitsForAnImportThatInstallsIntoTheSameCache) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(staged_);
  ArrivedImages images = Arrived(sample.Names());
  images.Check(ctx_, {sample.image});
  fs::create_directories(cache_);
  {
    base::UniqueFd dir = base::OpenDirectory(cache_);
    base::Lock(ctx_, dir.get());
    const base::LockedFd other(std::move(dir));
    const Context ctx = ctx_.WithTimeout(std::chrono::milliseconds(200));
    EXPECT_MSB_ERROR(images.Install(ctx), ErrorKind::kCancelled, "deadline exceeded");
    EXPECT_TRUE(fs::is_empty(cache_));
  }
  images.Install(ctx_);
  ExpectInstalled(sample);
}

TEST_F(ArrivedImagesTest, MakesTheCacheAgainThatAFailedImportHasRemoved) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(staged_);
  ArrivedImages images = Arrived(sample.Names());
  images.Check(ctx_, {sample.image});
  const auto install = [&] {
    images.Install(ctx_);
    return 0;
  };
  const test::TracedRun run = test::InterfereAtSyscall(
      0, [](const test::SystemCall& call) { return call.number == SYS_flock; }, install,
      [&](pid_t) { fs::remove(cache_); });
  EXPECT_TRUE(run.interfered);
  EXPECT_EQ(run.exit_status, 0);
  ExpectInstalled(sample);
}

TEST_F(ArrivedImagesTest, DoesNotFollowALinkOfTheCache) {
  const ImageSample sample = MakeOciImage("a");
  sample.Write(staged_);
  ArrivedImages images = Arrived(sample.Names());
  images.Check(ctx_, {sample.image});
  fs::create_directories(cache_);
  fs::create_directory(dir_ / "elsewhere");
  fs::create_directory_symlink(dir_ / "elsewhere", cache_ / "fsmeta");
  try {
    images.Install(ctx_);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(ErrorKindName(e.kind()), "IO");
    EXPECT_THAT(e.what(), HasSubstr("fsmeta must be a directory, but is a symbolic link"));
  }
  EXPECT_TRUE(fs::is_symlink(cache_ / "fsmeta"));
  EXPECT_FALSE(fs::exists(cache_ / sample.metadata));
  EXPECT_TRUE(fs::is_empty(dir_ / "elsewhere"));
}

TEST_F(ArrivedImagesTest, InstallsFromAnotherFileSystem) {
  std::string other = "/dev/shm/msb-test-XXXXXX";
  struct stat here;
  struct stat there;
  if (mkdtemp(other.data()) == nullptr || stat(other.c_str(), &there) != 0 ||
      stat(dir_.path().c_str(), &here) != 0 || here.st_dev == there.st_dev) {
    GTEST_SKIP() << "/dev/shm is not another file system";
  }
  const ImageSample sample = MakeOciImage("a");
  sample.Write(other);
  ArrivedImages images(other, sample.Names(), cache_, ArchiveWords());
  images.Check(ctx_, {sample.image});
  images.Install(ctx_);
  fs::remove_all(other);
  ExpectInstalled(sample);
}

}  // namespace
}  // namespace msb::archive
