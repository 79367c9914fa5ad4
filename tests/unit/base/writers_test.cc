// SPDX-License-Identifier: Apache-2.0

#include "src/base/writers.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "src/base/descriptor.h"
#include "tests/support/mapped_file.h"
#include "tests/support/support.h"

namespace msb::base {
namespace {

// Any local file system grants leases, but not every kernel that emulates Linux does.
class WritersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    test::WriteFile(path_, std::string(kSize, 'a'));
    fd_ = OpenAt(AT_FDCWD, path_.c_str(), O_RDONLY);
    if (!HasWriter(fd_.get())) GTEST_SKIP() << "no leases (F_SETLEASE) on the file system of tests";
  }

  UniqueFd OpenToWrite() const { return OpenAt(AT_FDCWD, path_.c_str(), O_RDWR); }

  static constexpr std::size_t kSize = 1 << 16;
  const Context ctx_ = Context::Background();
  test::TempDir dir_;
  const std::string path_ = dir_ / "file";
  UniqueFd fd_;
};

TEST_F(WritersTest, FindsProcessesThatHaveTheFileOpenForWriting) {
  EXPECT_EQ(HasWriter(fd_.get()), false);
  UniqueFd reader = OpenAt(AT_FDCWD, path_.c_str(), O_RDONLY);
  EXPECT_EQ(HasWriter(fd_.get()), false);
  UniqueFd writer = OpenToWrite();
  EXPECT_EQ(HasWriter(fd_.get()), true);
  writer.Reset(-1);
  EXPECT_EQ(HasWriter(fd_.get()), false);
}

TEST_F(WritersTest, FindsASharedMappingWhoseDescriptorWasClosed) {
  {
    test::MappedFile mapping(path_);
    EXPECT_EQ(HasWriter(fd_.get()), true);
  }
  EXPECT_EQ(HasWriter(fd_.get()), false);
}

TEST_F(WritersTest, WatchNoticesAWriterThatIsThereWhenItBegins) {
  test::MappedFile mapping(path_);
  mapping.Touch();
  const WriteWatch watch(ctx_, fd_.get());
  EXPECT_TRUE(watch.had_writer());
  EXPECT_FALSE(watch.Undisturbed(ctx_));
}

TEST_F(WritersTest, WatchNoticesAWriterThatComesLater) {
  const WriteWatch watch(ctx_, fd_.get());
  EXPECT_FALSE(watch.had_writer());
  EXPECT_TRUE(watch.Undisturbed(ctx_));
  {
    const UniqueFd writer = OpenToWrite();
    EXPECT_FALSE(watch.Undisturbed(ctx_));
  }
  EXPECT_TRUE(watch.Undisturbed(ctx_));
  test::WriteFile(path_, "other");
  EXPECT_FALSE(watch.Undisturbed(ctx_));
}

TEST_F(WritersTest, WatchNoticesAWriteThatSetsTheModificationTimeBack) {
  const WriteWatch watch(ctx_, fd_.get());
  test::PatchFileKeepingTime(path_, 5, "other");
  EXPECT_EQ(watch.stamp().mtime_ns, StampOf(fd_.get()).mtime_ns);
  EXPECT_FALSE(watch.Undisturbed(ctx_));
}

TEST_F(WritersTest, WatchWaitsForAWriterThatGoesAway) {
  UniqueFd writer = OpenToWrite();
  std::thread closer([&] { writer.Reset(-1); });
  const WriteWatch watch(ctx_, fd_.get());
  closer.join();
  EXPECT_FALSE(watch.had_writer());
}

TEST_F(WritersTest, CancelledWatchDoesNotWait) {
  const UniqueFd writer = OpenToWrite();
  const Context ended = ctx_.WithTimeout(std::chrono::milliseconds(0));
  EXPECT_MSB_ERROR(WriteWatch(ended, fd_.get()), ErrorKind::kCancelled, "deadline exceeded");
}

}  // namespace
}  // namespace msb::base
