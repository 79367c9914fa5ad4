// SPDX-License-Identifier: Apache-2.0
//
// Failures of system calls while Stage::PublishFile replaces a file.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <string>

#include "src/base/staging.h"
#include "tests/support/call_interceptor.h"
#include "tests/support/support.h"

namespace msb::test {
namespace {

using testing::HasSubstr;

class PublishFileTest : public ::testing::Test {
 protected:
  // Replaces "target" while linkat fails with link_error and the flush of the directory with
  // flush_error; 0 lets the call succeed. Returns the error that PublishFile threw, or an empty
  // string.
  std::string Publish(int link_error, int flush_error) {
    const auto decide = [&](const InterceptedCall& call) {
      if (call.number == SYS_linkat) return link_error;
      return call.number == SYS_fsync && call.PathOf(0) == dir_.path() ? flush_error : 0;
    };
    return RunIntercepted({SYS_linkat, SYS_fsync}, decide,
                          [&](const auto& begin) {
                            base::Stage stage(dir_.path());
                            base::WriteNewFileAt(stage.fd(), "file", "new", 0600);
                            begin();
                            try {
                              stage.PublishFile("file", "target");
                            } catch (const Error& e) {
                              return std::string(ErrorKindName(e.kind())) + ": " + e.what();
                            }
                            return std::string();
                          })
        .report;
  }

  // Expects the directory to hold only "target", with this content.
  void ExpectTarget(const std::string& content) {
    EXPECT_EQ(ReadFile(dir_ / "target"), content);
    EXPECT_EQ(ListTree(dir_.path()).size(), 1U);
  }

  const TempDir dir_;
};

TEST_F(PublishFileTest, ReplacesNothingWithoutSpaceForASecondName) {
  for (const int error : {ENOSPC, EDQUOT}) {
    WriteFile(dir_ / "target", "old");
    const std::string thrown = Publish(error, EIO);
    EXPECT_THAT(thrown, HasSubstr("IO: cannot replace " + (dir_ / "target").native()));
    ExpectTarget("old");
  }
}

TEST_F(PublishFileTest, PutsTheOldFileBackWhenTheFlushFails) {
  WriteFile(dir_ / "target", "old");
  EXPECT_THAT(Publish(0, EIO), HasSubstr("IO: "));
  ExpectTarget("old");
}

TEST_F(PublishFileTest, RemovesANewFileWhenTheFlushFails) {
  EXPECT_THAT(Publish(0, EIO), HasSubstr("IO: "));
  EXPECT_EQ(ListTree(dir_.path()).size(), 0U);
}

TEST_F(PublishFileTest, ReplacesAFileWithoutHardLinks) {
  for (const int error : {EPERM, EOPNOTSUPP, ENOSYS, EMLINK}) {
    WriteFile(dir_ / "target", "old");
    EXPECT_EQ(Publish(error, 0), "");
    ExpectTarget("new");
  }
}

TEST_F(PublishFileTest, ReportsThatTheNewFileStaysIfTheFlushFailsWithoutHardLinks) {
  WriteFile(dir_ / "target", "old");
  const std::string thrown = Publish(EPERM, EIO);
  EXPECT_THAT(thrown, HasSubstr("IO: "));
  EXPECT_THAT(thrown, HasSubstr((dir_ / "target").native() + " is the new file"));
  EXPECT_THAT(thrown, HasSubstr("after a power failure"));
  ExpectTarget("new");
}

}  // namespace
}  // namespace msb::test
