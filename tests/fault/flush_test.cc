// SPDX-License-Identifier: Apache-2.0
//
// The order of flushes and renames in every operation that changes a home: a crash of the machine
// after a rename must find on disk what the rename published.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/syscall.h>

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/fault/operations.h"
#include "tests/support/call_interceptor.h"

namespace msb::test {
namespace {

bool IsAtOrBeneath(const std::string& path, const std::string& top) {
  return path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/');
}

// Returns the path in the i-th argument, which is relative to the directory in the one before it.
std::string PathAt(const InterceptedCall& call, std::size_t i) {
  const std::string path = call.Text(i);
  return path.starts_with('/') ? path : call.PathOf(i - 1) + "/" + path;
}

bool IsHidden(const std::string& path) { return path.find("/.msb-") != std::string::npos; }

// A FlushLog follows the calls of one operation, and knows what a crash of the machine could lose.
class FlushLog {
 public:
  explicit FlushLog(std::string sandboxes) : sandboxes_(std::move(sandboxes)) {}

  // Notes a call before it is made. Fails the test if it publishes something that is not flushed.
  void Note(const InterceptedCall& call) {
    switch (call.number) {
      case SYS_fsync:
        unflushed_.erase(call.PathOf(0));
        changed_.erase(call.PathOf(0));
        flushed_.insert(call.PathOf(0));
        break;
      case SYS_write:
      case SYS_pwrite64:
      case SYS_ftruncate:
        unflushed_.insert(call.PathOf(0));
        break;
      case SYS_ioctl:
        if (call.arguments[1] == FICLONE) unflushed_.insert(call.PathOf(0));
        break;
      case SYS_copy_file_range:
        unflushed_.insert(call.PathOf(2));
        break;
      case SYS_openat:
        if ((call.arguments[2] & O_CREAT) != 0) unflushed_.insert(call.PathOf(0));
        break;
      case SYS_mkdirat:
        unflushed_.insert(call.PathOf(0));
        // A stage that is lost in a crash is no harm.
        if (!IsHidden(PathAt(call, 1))) NoteChanged(call.PathOf(0));
        break;
      case SYS_linkat:
        NoteLink(call);
        break;
      default:
        NoteRename(call);
    }
  }

  // Fails the test if a change of a visible directory is not flushed.
  void ExpectAllFlushed() const { EXPECT_EQ(changed_, std::set<std::string>()); }

  static const std::vector<long>& Calls() {
    static const std::vector<long> calls = {
        SYS_fsync,  SYS_write,   SYS_pwrite64, SYS_ftruncate, SYS_ioctl,    SYS_copy_file_range,
        SYS_openat, SYS_mkdirat, SYS_linkat,   SYS_rename,    SYS_renameat, SYS_renameat2};
    return calls;
  }

 private:
  // A disk in a sandbox becomes the snapshot's when it is linked. The guest may have written to it.
  // A record was flushed when it was written.
  void NoteLink(const InterceptedCall& call) {
    const std::string source = PathAt(call, 1);
    if (IsAtOrBeneath(source, sandboxes_) && !source.ends_with("/sandbox.json")) {
      EXPECT_TRUE(flushed_.contains(source)) << "not flushed before " << call.Describe();
      flushed_.insert(PathAt(call, 3));
    }
    unflushed_.insert(call.PathOf(2));
  }

  void NoteRename(const InterceptedCall& call) {
    const std::string source = PathAt(call, 1);
    for (const std::string& path : unflushed_) {
      EXPECT_FALSE(IsAtOrBeneath(path, source)) << path << " before " << call.Describe();
    }
    unflushed_.insert(call.PathOf(2));
    NoteChanged(call.PathOf(0));
    NoteChanged(call.PathOf(2));
  }

  // Changes within a hidden directory are published, or deleted, later.
  void NoteChanged(const std::string& dir) {
    if (!IsHidden(dir)) changed_.insert(dir);
  }

  const std::string sandboxes_;      // The directory of the sandboxes.
  std::set<std::string> unflushed_;  // Files and directories that were changed.
  std::set<std::string> changed_;    // Visible directories whose entries were changed.
  std::set<std::string> flushed_;    // Files and directories that were flushed.
};

class FlushTest : public ::testing::TestWithParam<Operation> {};

TEST_P(FlushTest, PublishesOnlyFlushedFiles) {
  FaultHome home(GetParam().prepare);
  FlushLog log(home.Sandboxes());
  const auto note = [&](const InterceptedCall& call) {
    log.Note(call);
    return 0;
  };
  const InterceptedRun run =
      RunIntercepted(FlushLog::Calls(), note, [&](const std::function<void()>& begin) {
        GetParam().run(home, begin);
        return std::string("done");
      });
  EXPECT_EQ(run.crash, "");
  EXPECT_EQ(run.report, "done");
  log.ExpectAllFlushed();
}

INSTANTIATE_TEST_SUITE_P(Operations, FlushTest, ::testing::ValuesIn(Operations()),
                         [](const auto& operation) { return operation.param.name; });

}  // namespace
}  // namespace msb::test
