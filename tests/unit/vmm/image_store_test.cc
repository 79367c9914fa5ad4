// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/image_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <utility>
#include <vector>

#include "src/base/big_endian.h"
#include "src/base/descriptor.h"
#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/writers.h"
#include "tests/support/mapped_file.h"
#include "tests/support/qcow2_sample.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

// Returns a raw disk of one sector that begins with text.
std::string DiskOfText(std::string text) {
  text.resize(512);
  return text;
}

class ImageStoreTest : public testing::Test {
 protected:
  PinnedImage Pin(const std::string& reference) { return store_.Pin(ctx_, reference); }

  static std::uint64_t InodeOf(const fs::path& path) { return base::StampOf(path)->inode; }

  // Returns the number of disks in the cache.
  std::size_t Count() const {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(cache_ / "disks")) {
      count += entry.is_regular_file() ? 1 : 0;
    }
    return count;
  }

  const Context ctx_ = Context::Background();
  test::TempDir dir_;
  const fs::path cache_ = dir_ / "cache";
  const fs::path image_ = dir_ / "base.img";
  ImageStore store_{base::Home({.home = dir_.path()})};
};

TEST_F(ImageStoreTest, KeepsAnImageUnderItsHash) {
  test::MakeSparseFile(image_, 6 << 20, {{5 << 20, test::Noise(5000, 1)}});
  const PinnedImage pinned = Pin(image_.native());
  const std::string digest = base::Sha256Digest(test::ReadFile(image_));
  EXPECT_EQ(pinned.image.ref, image_.native());
  EXPECT_EQ(pinned.image.manifest_digest, digest);
  EXPECT_EQ(pinned.disk.path, cache_ / "disks" / ("sha256_" + digest.substr(7) + ".raw"));
  EXPECT_EQ(pinned.disk.format, DiskFormat::kRaw);
  EXPECT_EQ(test::ReadFile(pinned.disk.path), test::ReadFile(image_));
  EXPECT_EQ(test::ExtentsOf(pinned.disk.path), test::ExtentsOf(image_));
  EXPECT_EQ(fs::status(pinned.disk.path).permissions() & fs::perms(0222), fs::perms::none);
}

TEST_F(ImageStoreTest, RefusesImagesThatAreNotRawOrQcow2AndKeepsNothing) {
  test::WriteFile(image_, "");
  EXPECT_MSB_ERROR(Pin(image_.native()), ErrorKind::kInvalidArgument, "/base.img is empty",
                   "give a raw or qcow2 disk image", "qemu-img create -f qcow2");
  test::WriteFile(image_, "KDMV" + std::string(1000, '\0'));
  EXPECT_MSB_ERROR(Pin(image_.native()), ErrorKind::kUnsupportedOperation,
                   "/base.img is a VMDK image", "qemu-img convert -f vmdk -O qcow2");
  EXPECT_FALSE(fs::exists(cache_));
}

TEST_F(ImageStoreTest, RefusesQcow2ImagesThatItCannotReadAndKeepsNothing) {
  for (const auto& [offset, value] :
       std::vector<std::pair<std::uint64_t, std::string>>{{32, "\0\0\0\1"s},       // Encryption.
                                                          {60, "\0\0\0\1"s},       // Snapshots.
                                                          {79, "\x04"s},           // External data.
                                                          {40, "\x7f\0\0\0"s}}) {  // L1 table.
    test::WriteFile(image_, test::Qcow2Sample("content"));
    test::PatchFile(image_, offset, value);
    const bool is_damage = offset == 40;
    EXPECT_MSB_ERROR(Pin(image_.native()),
                     is_damage ? ErrorKind::kSnapshotIntegrity : ErrorKind::kUnsupportedOperation,
                     "qcow2 file '" + image_.native() + "'",
                     is_damage ? "replace it" : "run qemu-img convert ",
                     is_damage ? "outside the file" : "-converted.qcow2'");
    EXPECT_FALSE(fs::exists(cache_));
    fs::remove(image_);
  }
}

TEST_F(ImageStoreTest, RefusesAQcow2ImageWithDamagedRefcountsAndCopiesNothing) {
  const std::string image = test::Qcow2Sample("content");
  test::WriteFile(image_, image);
  const std::uint64_t refcounts = base::LoadBigEndian(test::Bytes(image).subspan(48, 8));
  test::PatchFile(image_, refcounts, std::string(8, '\0'));
  EXPECT_MSB_ERROR(Pin(image_.native()), ErrorKind::kSnapshotIntegrity, image_.native(),
                   "replace it with an undamaged copy");
  EXPECT_EQ(Count(), 0U);
}

TEST_F(ImageStoreTest, DoesNotCopyAnImageAgainThatHasNotChanged) {
  test::WriteFile(image_, DiskOfText("content"));
  const PinnedImage first = Pin(image_.native());
  const std::uint64_t inode = InodeOf(first.disk.path);
  const PinnedImage second = Pin(image_.native());
  EXPECT_EQ(second.image.manifest_digest, first.image.manifest_digest);
  EXPECT_EQ(second.disk.path, first.disk.path);
  EXPECT_EQ(InodeOf(second.disk.path), inode);
}

TEST_F(ImageStoreTest, GivesAChangedFileAnotherDigest) {
  test::WriteFile(image_, DiskOfText("content"));
  fs::last_write_time(image_, fs::file_time_type::clock::now() - std::chrono::hours(1));
  const PinnedImage first = Pin(image_.native());
  test::PatchFile(image_, 0, "C");
  const PinnedImage second = Pin(image_.native());
  EXPECT_EQ(second.image.manifest_digest, base::Sha256Digest(DiskOfText("Content")));
  EXPECT_EQ(test::ReadFile(second.disk.path), DiskOfText("Content"));
  EXPECT_EQ(test::ReadFile(first.disk.path), DiskOfText("content"));
  EXPECT_EQ(Count(), 2U);
}

// Returns true if this process has the file open for writing, as far as leases reveal it.
bool LeasesRevealWriters(const fs::path& file) {
  const test::MappedFile mapped(file);
  const base::UniqueFd fd = base::OpenAt(AT_FDCWD, file.c_str(), O_RDONLY);
  return base::HasWriter(fd.get()).value_or(false);
}

// A program that is writing may change the file later without changing its times.
TEST_F(ImageStoreTest, RemembersNoDigestOfAFileThatIsOpenForWriting) {
  test::WriteFile(image_, DiskOfText("content"));
  if (!LeasesRevealWriters(image_)) GTEST_SKIP() << "no leases on the file system of the tests";
  fs::last_write_time(image_, fs::file_time_type::clock::now() - std::chrono::hours(1));
  const fs::path pins = cache_ / "disks" / "pins";
  {
    const test::MappedFile mapped(image_);
    EXPECT_EQ(Pin(image_.native()).image.manifest_digest,
              base::Sha256Digest(DiskOfText("content")));
    EXPECT_TRUE(fs::is_empty(pins));
  }
  Pin(image_.native());
  const base::UniqueFd fd = base::OpenAt(AT_FDCWD, image_.c_str(), O_RDONLY);
  EXPECT_EQ(fs::is_empty(pins), !base::TimesFollowStores(fd.get()));
}

// Stores through a mapping of a file on tmpfs do not change its times once its pages are mapped.
TEST_F(ImageStoreTest, ReadsAFileOnTmpfsAgainThatWasChangedThroughAMapping) {
  struct statfs file_system {};
  if (statfs("/dev/shm", &file_system) != 0 || file_system.f_type != TMPFS_MAGIC) {
    GTEST_SKIP() << "/dev/shm is not a tmpfs";
  }
  const test::TempDir memory("/dev/shm");
  const fs::path image = memory / "base.img";
  test::WriteFile(image, std::string(4096, 'a'));
  fs::last_write_time(image, fs::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_EQ(Pin(image.native()).image.manifest_digest, base::Sha256Digest(std::string(4096, 'a')));
  const base::FileStamp before = *base::StampOf(image);
  {
    test::MappedFile mapped(image);
    mapped.Touch();  // Reads each page before it writes to it.
  }
  EXPECT_TRUE(base::StampOf(image)->IsUntouched(before));
  EXPECT_EQ(Pin(image.native()).image.manifest_digest,
            base::Sha256Digest("b" + std::string(4095, 'a')));
}

TEST_F(ImageStoreTest, TakesAnotherFileOfTheSameTimeAndSizeForAnother) {
  test::WriteFile(image_, DiskOfText("content"));
  const auto time = fs::last_write_time(image_) - std::chrono::hours(1);
  fs::last_write_time(image_, time);
  Pin(image_.native());
  test::WriteFile(dir_ / "other.img", DiskOfText("CONTENT"));
  fs::last_write_time(dir_ / "other.img", time);
  fs::rename(dir_ / "other.img", image_);
  EXPECT_EQ(Pin(image_.native()).image.manifest_digest, base::Sha256Digest(DiskOfText("CONTENT")));
}

TEST_F(ImageStoreTest, KeepsTheSameContentOnce) {
  test::WriteFile(image_, DiskOfText("content"));
  test::WriteFile(dir_ / "copy.img", DiskOfText("content"));
  EXPECT_EQ(Pin(image_.native()).disk.path, Pin((dir_ / "copy.img").native()).disk.path);
  EXPECT_EQ(Count(), 1U);
}

TEST_F(ImageStoreTest, CopiesAnImageAgainThatTheCacheHasLost) {
  test::WriteFile(image_, DiskOfText("content"));
  const fs::path cached = Pin(image_.native()).disk.path;
  fs::remove(cached);
  EXPECT_EQ(Pin(image_.native()).disk.path, cached);
  EXPECT_EQ(test::ReadFile(cached), DiskOfText("content"));
}

TEST_F(ImageStoreTest, IsNotHarmedByADamagedNoteOfAPin) {
  test::WriteFile(image_, DiskOfText("content"));
  // A digest is remembered only for an image that was not modified within the last two seconds.
  fs::last_write_time(image_, fs::file_time_type::clock::now() - std::chrono::hours(1));
  const PinnedImage first = Pin(image_.native());
  const fs::path pin = fs::directory_iterator(cache_ / "disks" / "pins")->path();
  const std::string note = test::ReadFile(pin);
  for (const std::string& damaged :
       {std::string(), note.substr(0, note.size() - 1), note.substr(0, note.size() - 71),
        note.substr(0, note.size() - 71) + "sha256:../../../../../etc/passwd",
        std::string(10'000, 'x')}) {
    test::WriteFile(pin, damaged);
    EXPECT_EQ(Pin(image_.native()).disk.path, first.disk.path);
  }
}

TEST_F(ImageStoreTest, FindsACachedImageByItsDigest) {
  test::WriteFile(image_, DiskOfText("content"));
  const std::string digest = Pin(image_.native()).image.manifest_digest;
  fs::remove(image_);
  const PinnedImage pinned = Pin(digest);
  EXPECT_EQ(pinned.image.ref, digest);
  EXPECT_EQ(pinned.image.manifest_digest, digest);
  EXPECT_EQ(test::ReadFile(pinned.disk.path), DiskOfText("content"));
  EXPECT_MSB_ERROR(Pin("sha256:" + std::string(64, '0')), ErrorKind::kImageNotFound,
                   "no image sha256:000", "/cache/disks", "give the path of the image file");
}

TEST_F(ImageStoreTest, DoesNotFindImagesThatAreNotFiles) {
  fs::create_directory(dir_ / "directory");
  ASSERT_EQ(mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  fs::create_symlink("nowhere", dir_ / "dangling");
  fs::create_symlink("loop", dir_ / "loop");
  for (const std::string& reference :
       {(dir_ / "gone").native(), (dir_ / "directory").native(), (dir_ / "fifo").native(),
        (dir_ / "dangling").native(), (dir_ / "loop").native(), std::string("alpine:3.20"),
        std::string("/"), std::string("sha256:short")}) {
    EXPECT_MSB_ERROR(Pin(reference), ErrorKind::kImageNotFound,
                     "image '" + reference + "' must be the path of a disk image file, but ");
  }
}

TEST_F(ImageStoreTest, FollowsALinkOfTheUser) {
  test::WriteFile(image_, DiskOfText("content"));
  fs::create_symlink("base.img", dir_ / "link");
  EXPECT_EQ(Pin((dir_ / "link").native()).image.manifest_digest,
            base::Sha256Digest(DiskOfText("content")));
}

TEST_F(ImageStoreTest, DetectsFileSystemsByTheirSuperblock) {
  const std::vector<std::pair<std::string, std::pair<std::uint64_t, std::string>>> disks = {
      {"ext4", {1080, "\x53\xef"s}},   {"xfs", {0, "XFSB"s}},
      {"btrfs", {65600, "_BHRfS_M"s}}, {"erofs", {1024, "\xe2\xe1\xf5\xe0"s}},
      {"squashfs", {0, "hsqs"s}},      {"unknown", {0, "anything"s}}};
  for (const auto& [name, magic] : disks) {
    test::MakeSparseFile(dir_ / name, 1 << 20, {magic});
    EXPECT_EQ(Pin((dir_ / name).native()).disk.fstype, name);
    EXPECT_EQ(Pin((dir_ / name).native()).disk.format, DiskFormat::kRaw);
  }
  // Too short for most superblocks.
  for (const std::size_t size : {512U, 1024U}) {
    test::WriteFile(dir_ / "short", std::string(size, '\0'));
    EXPECT_EQ(Pin((dir_ / "short").native()).disk.fstype, "unknown");
  }
}

TEST_F(ImageStoreTest, DetectsQcow2ByItsMagic) {
  test::WriteFile(image_, test::Qcow2Sample("content"));
  const PinnedImage pinned = Pin(image_.native());
  EXPECT_EQ(pinned.disk.format, DiskFormat::kQcow2);
  EXPECT_EQ(pinned.disk.fstype, "unknown");
  EXPECT_EQ(pinned.disk.path.extension(), ".qcow2");
  EXPECT_EQ(Pin(pinned.image.manifest_digest).disk.path, pinned.disk.path);
}

TEST_F(ImageStoreTest, DetectsTheFileSystemOfAReleasesDisk) {
  const fs::path upper =
      test::UnpackFixtureHome("0.6.6", dir_.path()) / "sandboxes" / "baseline" / "upper.ext4";
  EXPECT_EQ(Pin(upper.native()).disk.fstype, "ext4");
}

TEST_F(ImageStoreTest, LeavesNothingWhenItIsCancelled) {
  test::WriteFile(image_, test::Noise(100'352, 1));
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  EXPECT_MSB_ERROR(store_.Pin(ctx, image_.native()), ErrorKind::kCancelled, "cancelled");
  EXPECT_EQ(Count(), 0U);
  EXPECT_EQ(test::ListTree(cache_ / "disks").size(), 1U);
}

TEST_F(ImageStoreTest, CopiesAFileAgainWhoseWriterKeepsTheModificationTime) {
  test::WriteFile(image_, test::Noise(100'352, 1));
  bool done = false;
  const Context once = ctx_.WithProgress([&](const Progress&) {
    if (!std::exchange(done, true)) test::PatchFileKeepingTime(image_, 50'000, "changed");
  });
  const PinnedImage pinned = store_.Pin(once, image_.native());
  EXPECT_TRUE(done);
  EXPECT_EQ(pinned.image.manifest_digest, base::Sha256Digest(test::ReadFile(image_)));
  EXPECT_EQ(test::ReadFile(pinned.disk.path), test::ReadFile(image_));

  fs::remove(pinned.disk.path);
  const Context always = ctx_.WithProgress(
      [&](const Progress&) { test::PatchFileKeepingTime(image_, 50'000, "changed again"); });
  EXPECT_MSB_ERROR(store_.Pin(always, image_.native()), ErrorKind::kIO,
                   "/base.img changed while it was copied", "try again");
  EXPECT_EQ(Count(), 0U);
}

TEST_F(ImageStoreTest, RefusesAFileThatChangesWhileItIsCopied) {
  test::WriteFile(image_, test::Noise(100'352, 1));
  fs::last_write_time(image_, fs::file_time_type::clock::now() - std::chrono::hours(1));
  const Context ctx =
      ctx_.WithProgress([&](const Progress&) { test::PatchFile(image_, 50'000, "changed"); });
  EXPECT_MSB_ERROR(store_.Pin(ctx, image_.native()), ErrorKind::kIO,
                   "/base.img changed while it was copied", "try again");
  EXPECT_EQ(Count(), 0U);
}

}  // namespace
}  // namespace msb::vmm
