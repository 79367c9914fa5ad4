// SPDX-License-Identifier: Apache-2.0
//
// Tests Import when something exists at its target, and when it is cancelled.

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <tuple>

#include "tests/support/fed_pipe.h"
#include "tests/support/import_home.h"
#include "tests/support/zstd_frame.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

using ImportTargetTest = ImportHome;

TEST_F(ImportTargetTest, TheSameSnapshotAgain) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    const SampleArchive archive = MakeSampleArchive(layout);
    ExpectSound(Import(archive.Tar()), archive.snapshots[0]);
    ExpectRefused(archive.Tar(), ErrorKind::kSnapshotAlreadyExists);
  }
}

TEST_F(ImportTargetTest, TheSecondOfTwo) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    const SampleArchive chain = MakeSampleChain(layout);
    const SampleArchive child = MakeSampleArchive({chain.snapshots[1]});
    ExpectSound(Import(child.Tar()), child.snapshots[0]);
    ExpectRefused(chain.Tar(), ErrorKind::kSnapshotAlreadyExists);
    EXPECT_MSB_ERROR(
        Snapshot::Get(ctx_, chain.snapshots[0].digest, client_), ErrorKind::kSnapshotNotFound,
        "no snapshot '" + chain.snapshots[0].digest + "' in the index", "call Reindex");
  }
}

// The cache may have lost the image, or may never have had it.
TEST_F(ImportTargetTest, TheSameSnapshotWithItsImageAddsTheImage) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    const SampleArchive archive = MakeSampleWithImage(layout);
    const SnapshotHandle handle = Import(MakeSampleArchive(layout).Tar());
    const std::string out = archives_ / "out.tar.zst";
    EXPECT_MSB_ERROR(Snapshot::Export(ctx_, handle.Path(), out, {.with_image = true}, client_),
                     ErrorKind::kSnapshotImageMissing, "image 'sample:1'");
    EXPECT_MSB_ERROR(Import(archive.Tar()), ErrorKind::kSnapshotAlreadyExists,
                     handle.Digest() + " already exists", "use it, or remove it first");
    Snapshot::Export(ctx_, handle.Path(), out, {.with_image = true}, client_);
    ExpectRefused(archive.Tar(), ErrorKind::kSnapshotAlreadyExists);
    for (const auto& [file, content] : MakeSampleImage().files) {
      fs::remove(home_ / "cache" / file);
    }
  }
}

TEST_F(ImportTargetTest, RefusesEveryTypeOfExistingTarget) {
  const std::string sound = MakeSampleArchive(SampleLayout::kInventory).Tar();
  const fs::path target = Import(sound, dest_).Path();
  fs::remove_all(target);
  WriteFile(target, "mine");
  ExpectRefused(sound, ErrorKind::kSnapshotAlreadyExists, dest_);
  fs::remove(target);
  fs::create_directory(target);
  ExpectRefused(sound, ErrorKind::kSnapshotAlreadyExists, dest_);
  fs::remove(target);
  for (const fs::path& link : {dir_ / "nowhere", dest_ / "mine", home_ / "snapshots"}) {
    fs::create_symlink(link, target);
    ExpectRefused(sound, ErrorKind::kSnapshotAlreadyExists, dest_);
    fs::remove(target);
  }
}

TEST_F(ImportTargetTest, InvalidDestinations) {
  const std::string sound = MakeSampleArchive(SampleLayout::kInventory).Tar();
  for (const std::string& dest : {(dir_ / "base.img").native(), (dest_ / "mine/x").native(),
                                  std::string("/proc/nowhere"), std::string("/dev/null")}) {
    SCOPED_TRACE(dest);
    ExpectRefused(sound,
                  {ErrorKind::kIO, ErrorKind::kInvalidArgument, ErrorKind::kSnapshotAlreadyExists},
                  dest);
  }
}

TEST_F(ImportTargetTest, ADamagedArchiveLeavesExplicitDestinationsAlone) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleChain(layout);
    SCOPED_TRACE(archive.entries[0].name);
    archive.entries.back().content[0] = static_cast<char>(~archive.entries.back().content[0]);
    ExpectRefused(archive.Tar(), ErrorKind::kSnapshotIntegrity, dest_);
    // A destination that does not exist is not left behind.
    ExpectRefused(archive.Tar(), ErrorKind::kSnapshotIntegrity, dir_ / "absent");
    ExpectRefused(archive.Tar(), ErrorKind::kSnapshotIntegrity, dir_ / "absent/deeper");
  }
}

// Neither a snapshots directory nor a cache is left, nor even the home itself.
TEST_F(ImportTargetTest, ADamagedArchiveLeavesAnUnusedHomeAlone) {
  for (const SampleLayout layout : kSampleLayouts) {
    SampleArchive archive = MakeSampleWithImage(layout);
    SCOPED_TRACE(archive.entries[0].name);
    Client unused = LocalClient(dir_ / "unused", &log_);
    EXPECT_MSB_ERROR(Snapshot::Import(ctx_, Stored(archive.Tar().substr(0, 20'000)), "", unused),
                     ErrorKind::kSnapshotIntegrity,
                     "the archive is damaged: ", "copy or export it again");
    EXPECT_FALSE(fs::exists(dir_ / "unused"));
    std::ignore = Snapshot::List(ctx_, unused);
    const auto before = ListTree(dir_ / "unused");
    EXPECT_MSB_ERROR(Snapshot::Import(ctx_, Stored(archive.Tar().substr(0, 20'000)), "", unused),
                     ErrorKind::kSnapshotIntegrity,
                     "the archive is damaged: ", "copy or export it again");
    EXPECT_EQ(ListTree(dir_ / "unused"), before);
    fs::remove_all(dir_ / "unused");
  }
}

TEST_F(ImportTargetTest, ACallThatIsCancelledBeforehand) {
  const std::string archive = Stored(MakeSampleWithImage(SampleLayout::kInventory).Tar());
  const auto [ctx, cancel] = ctx_.WithCancel();
  cancel();
  for (const Context& done : {ctx, ctx_.WithTimeout(std::chrono::seconds(0))}) {
    ExpectPathRefused(archive, {ErrorKind::kCancelled}, "", done);
    ExpectPathRefused(archive, {ErrorKind::kCancelled}, dest_, done);
    ExpectPathRefused(archive, {ErrorKind::kCancelled}, dir_ / "absent", done);
  }
}

TEST_F(ImportTargetTest, ACallThatIsCancelledByItsProgress) {
  for (const SampleLayout layout : kSampleLayouts) {
    SCOPED_TRACE(static_cast<int>(layout));
    const auto [ctx, cancel] = ctx_.WithCancel();
    const Context cancelling = ctx.WithProgress([cancel = cancel](const Progress&) { cancel(); });
    ExpectPathRefused(Stored(Compress(MakeSampleWithImage(layout).Tar())), {ErrorKind::kCancelled},
                      "", cancelling);
  }
}

// The rest of the archive never arrives, but the deadline does.
TEST_F(ImportTargetTest, AStreamThatStalls) {
  for (const SampleLayout layout : kSampleLayouts) {
    const std::string sound = MakeSampleArchive(layout).Tar();
    for (const std::size_t size : {std::size_t{0}, std::size_t{100}, sound.size() / 2}) {
      SCOPED_TRACE(std::to_string(size) + " bytes");
      std::mutex mutex;
      std::condition_variable condition;
      bool over = false;
      const FedPipe pipe([&](const FedPipe::Write& write) {
        write(std::string_view(sound).substr(0, size));
        // Longer than the call may take, so that a call that ignores its deadline fails the test.
        std::unique_lock lock(mutex);
        condition.wait_for(lock, std::chrono::seconds(20), [&] { return over; });
      });
      ExpectPathRefused(pipe.path(), {ErrorKind::kCancelled}, "",
                        ctx_.WithTimeout(std::chrono::milliseconds(100)));
      const std::lock_guard lock(mutex);
      over = true;
      condition.notify_all();
    }
  }
}

}  // namespace
}  // namespace msb::test
