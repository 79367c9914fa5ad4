// SPDX-License-Identifier: Apache-2.0
//
// Failures of system calls while a snapshot takes over the disk of a sandbox.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <set>
#include <string>

#include "src/base/file.h"
#include "tests/support/call_interceptor.h"
#include "tests/support/support.h"
#include "tests/support/syscall_tracer.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr int kDone = 0;
constexpr int kRefused = 10;

// The calls that change a disk, and flock(2). Without write(2), which the sanitizers use
// themselves.
const std::set<long> kCalls = {
    SYS_pwrite64, SYS_fsync, SYS_fdatasync, SYS_ftruncate, SYS_mkdirat, SYS_renameat2, SYS_renameat,
    SYS_rename,   SYS_link,  SYS_linkat,    SYS_fchmod,    SYS_unlink,  SYS_unlinkat,  SYS_flock};

class SealFaultTest : public ::testing::Test {
 protected:
  SealFaultTest() {
    MakeSparseFile(dir_ / "base.img", 300'032, {{0, Noise(70'000, 1)}});
    Client client = NewClient();
    CreateSandbox(ctx_, "cow", {WithImage(dir_ / "base.img")}, client).Close();
  }

  Client NewClient() {
    return Client({.home = home_,
                   .backend = "local",
                   .upper_format = DiskFormat::kQcow2,
                   .log = [](std::string_view) {}});
  }

  // Expects the sandbox to work and to have one writable disk of its own. Then replaces it with a
  // new sandbox, and removes the snapshots.
  void ExpectUsable(const std::string& when) {
    Client client = NewClient();
    fs::path upper;
    ASSERT_NO_THROW(upper = GetSandbox(ctx_, "cow", client).Upper().path) << when;
    const auto stamp = base::StampOf(upper);
    ASSERT_TRUE(stamp) << when;
    EXPECT_EQ(stamp->mode & 0600, 0600U) << when;
    EXPECT_EQ(stamp->links, 1U) << when;
    ASSERT_NO_THROW(StartSandbox(ctx_, "cow", client).Stop(ctx_)) << when;
    ASSERT_NO_THROW(Snapshot::Create(ctx_, "cow", {.name = "next"}, client)) << when;
    ASSERT_NO_THROW(Snapshot::Flatten(ctx_, "next", dir_ / "flat", {}, client)) << when;
    EXPECT_EQ(ReadFile(dir_ / "flat").substr(0, 70'000), Noise(70'000, 1)) << when;
    // No hidden file, such as a stage, may be left among its files.
    for (const auto& entry : fs::directory_iterator(home_ / "sandboxes/cow")) {
      EXPECT_FALSE(entry.path().filename().native().starts_with('.')) << when << entry;
    }
    CreateSandbox(ctx_, "cow", {WithImage(dir_ / "base.img"), WithReplace()}, client).Close();
    for (const std::string name : {"next", "sealed"}) {
      if (fs::exists(home_ / "snapshots" / name)) Snapshot::Remove(ctx_, name, true, client);
    }
  }

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const fs::path home_ = dir_ / "home";
};

TEST_F(SealFaultTest, AFailingCallLeavesTheSandboxUsable) {
  int refused = 0;
  for (const int error : {ENOSPC, EACCES}) {
    for (int n = 0;; ++n) {
      const TracedRun run = FailSyscall(n, kCalls, error, [&] {
        try {
          Client client = NewClient();
          Snapshot::Create(ctx_, "cow", {.name = "sealed"}, client);
          return kDone;
        } catch (const Error&) {
          return kRefused;
        }
      });
      const std::string when = "call " + std::to_string(n) + ", number " +
                               std::to_string(run.syscall) + ", error " + std::to_string(error);
      ASSERT_TRUE(run.exit_status == kDone || run.exit_status == kRefused) << when;
      EXPECT_EQ(fs::exists(home_ / "snapshots/sealed"), run.exit_status == kDone) << when;
      refused += run.exit_status == kRefused ? 1 : 0;
      ExpectUsable(when);
      if (!run.interfered || HasFailure()) break;
    }
  }
  EXPECT_GT(refused, 10);
}

// On another file system the sealed disk is copied, which may take long after it was checked.
TEST_F(SealFaultTest, AWriteToTheDiskWhileItIsCopiedIsNoticed) {
  const fs::path snapshot = dir_ / "out/sealed";
  bool is_copied = false;
  bool is_written = false;
  const auto decide = [&](const InterceptedCall& call) {
    if (call.number == SYS_linkat) {
      is_copied = call.Describe().find(dir_ / "out") != std::string::npos;
      return is_copied ? EXDEV : 0;
    }
    const fs::path disk = call.PathOf(0);
    if (is_copied && !is_written && disk.native().starts_with(home_.native())) {
      fs::permissions(disk, fs::perms::owner_write, fs::perm_options::add);
      PatchFile(disk, fs::file_size(disk) - 1, "x");
      is_written = true;
    }
    return 0;
  };
  const InterceptedRun run =
      RunIntercepted({SYS_linkat, SYS_ioctl, SYS_copy_file_range, SYS_pread64}, decide,
                     [&](const std::function<void()>& begin) {
                       Client client = NewClient();
                       begin();
                       try {
                         Snapshot::Create(ctx_, "cow", {.path = snapshot}, client);
                       } catch (const Error& e) {
                         return fmt::format("{}: {}", ErrorKindName(e.kind()), e.what());
                       }
                       return std::string("done");
                     });
  EXPECT_TRUE(is_written);
  EXPECT_TRUE(run.report.starts_with("SnapshotSandboxRunning: ") &&
              run.report.find("was copied") != std::string::npos)
      << run.report << run.crash;
  EXPECT_FALSE(fs::exists(snapshot));
}

}  // namespace
}  // namespace msb::test
