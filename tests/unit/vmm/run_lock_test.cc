// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/run_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <string>
#include <utility>

#include "src/base/descriptor.h"
#include "src/base/file.h"
#include "src/vmm/directory_record.h"
#include "tests/support/support.h"

namespace msb::vmm {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RunLockTest : public ::testing::Test {
 protected:
  RunLockTest() { test::WriteFile(dir_ / "upper.ext4", "disk"); }

  RunState StateNow(const Runner& runner) const { return StateOf(runner, fd_.get(), "upper.ext4"); }

  // Returns the record of this process as an earlier release wrote it.
  static Runner EarlierRecord() {
    Runner runner;
    const base::ProcessIdentity self = base::ProcessIdentity::Self();
    runner.pid = self.pid;
    runner.start_ticks = self.start_ticks;
    runner.boot_id = self.boot_id;
    return runner;
  }

  test::TempDir dir_;
  const base::UniqueFd fd_ = base::OpenDirectory(dir_.path());
};

TEST_F(RunLockTest, OwnerRunsAsLongAsItHoldsTheLock) {
  RunLock lock = MakeRunLock(fd_.get());
  const Runner runner = lock.HeldBy(base::ProcessIdentity::Self());
  EXPECT_EQ(StateNow(runner), RunState::kRuns);
  lock.fd.Reset(-1);
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
}

TEST_F(RunLockTest, TheLockDecidesRegardlessOfThePid) {
  RunLock lock = MakeRunLock(fd_.get());
  Runner runner = lock.HeldBy(base::ProcessIdentity::Self());
  runner.pid = 1 << 22;  // No process here has this pid.
  EXPECT_EQ(StateNow(runner), RunState::kRuns);
  runner.pid_namespace += 1;
  EXPECT_EQ(StateNow(runner), RunState::kRuns);
  EXPECT_THAT(Describe(runner), HasSubstr("another container"));
  runner.boot_id = "another";
  runner.host = "elsewhere/1";
  EXPECT_EQ(StateNow(runner), RunState::kRuns);
  EXPECT_THAT(Describe(runner), HasSubstr("on host 'elsewhere'"));
  lock.fd.Reset(-1);
  runner = lock.HeldBy(base::ProcessIdentity::Self());
  runner.pid_namespace += 1;
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
}

// A program that inherits the lock holds it. The kernel releases it when the program is killed.
TEST_F(RunLockTest, LockIsHeldByTheProgramThatInheritsIt) {
  RunLock lock = MakeRunLock(fd_.get());
  // A copy without FD_CLOEXEC. posix_spawn runs no fork handler, which would close it.
  base::UniqueFd inherited(fcntl(lock.fd.get(), F_DUPFD, 3));
  std::string program = "sleep";
  std::string argument = "1000";
  std::array<char*, 3> arguments = {program.data(), argument.data(), nullptr};
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, "/bin/sleep", nullptr, nullptr, arguments.data(), environ), 0);
  const Runner runner = lock.HeldBy(base::ProcessIdentity::Self());
  lock.fd.Reset(-1);
  inherited.Reset(-1);
  EXPECT_EQ(StateNow(runner), RunState::kRuns);
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
}

TEST_F(RunLockTest, ForkedProcessDoesNotHoldTheLock) {
  RunLock lock = MakeRunLock(fd_.get());
  const std::string file = lock.file;
  const Runner runner = lock.HeldBy(base::ProcessIdentity::Self());
  HoldRunLock(std::move(lock));
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  EXPECT_EQ(StateNow(runner), RunState::kRuns);
  ReleaseRunLock(fd_.get(), file);
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// With a copy of the descriptor, the forked process would hold the lock after its owner has ended.
TEST_F(RunLockTest, ForkedProcessHasNoDescriptorOfTheLock) {
  const RunLock lock = MakeRunLock(fd_.get());
  const int descriptor = lock.fd.get();
  const fs::path file = dir_ / lock.file;
  EXPECT_TRUE(base::LeadsTo(file, descriptor));
  const pid_t child = fork();
  if (child == 0) _exit(base::LeadsTo(file, descriptor) ? 1 : 0);
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

// Another process removes the sandboxes that a long-running one boots.
TEST_F(RunLockTest, ALockIsDroppedOnceItsFileIsDeleted) {
  RunLock first = MakeRunLock(fd_.get());
  const int descriptor = first.fd.get();
  const std::string first_file = first.file;
  HoldRunLock(std::move(first));
  RunLock second = MakeRunLock(fd_.get());
  const std::string second_file = second.file;
  HoldRunLock(std::move(second));
  EXPECT_TRUE(test::IsOpen(descriptor));
  fs::remove(dir_ / first_file);
  RunLock third = MakeRunLock(fd_.get());
  const std::string third_file = third.file;
  HoldRunLock(std::move(third));
  EXPECT_FALSE(test::IsOpen(descriptor));
  ReleaseRunLock(fd_.get(), second_file);
  ReleaseRunLock(fd_.get(), third_file);
}

TEST_F(RunLockTest, OwnerOnAnotherHostMayRun) {
  Runner runner = MakeRunLock(fd_.get()).HeldBy(base::ProcessIdentity::Self());  // Then released.
  runner.boot_id = "another";
  runner.lock_domain.clear();  // As on NFS.
  // This host was rebooted, if it is not one of several that have the same name.
  EXPECT_EQ(StateNow(runner),
            base::HasMachineId(runner.host) ? RunState::kEnded : RunState::kMayRun);
  runner.host = "elsewhere/1";
  EXPECT_EQ(StateNow(runner), RunState::kMayRun);
  EXPECT_EQ(Describe(runner), "process " + std::to_string(runner.pid) + " on host 'elsewhere'");
}

// As after a reboot of a container with a random name, or on a volume of a machine that failed.
TEST_F(RunLockTest, OwnerOnALocalFileSystemEndedWithItsSystemWhateverThatWasCalled) {
  Runner runner = MakeRunLock(fd_.get()).HeldBy(base::ProcessIdentity::Self());  // Then released.
  if (runner.lock_domain != "local") GTEST_SKIP() << "the tests are not on a local file system";
  runner.boot_id = "another";
  runner.host = "elsewhere/1";
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
}

TEST_F(RunLockTest, WithoutALockTheProcessDecidesWhereItCanBeSeen) {
  Runner runner = RunLock().HeldBy(base::ProcessIdentity::Self());
  EXPECT_EQ(StateNow(runner), RunState::kRuns);
  runner.start_ticks -= 1;
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
  runner.pid_namespace += 1;
  EXPECT_EQ(StateNow(runner), RunState::kMayRun);
}

// As on FUSE, where each mount may have locks of its own.
TEST_F(RunLockTest, LockThatIsNotSharedDoesNotProveAnEnd) {
  Runner runner = MakeRunLock(fd_.get()).HeldBy(base::ProcessIdentity::Self());  // Then released.
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
  for (const char* domain : {"", "another"}) {
    runner.lock_domain = domain;
    EXPECT_EQ(StateNow(runner), RunState::kRuns);
  }
  runner.start_ticks -= 1;
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
}

TEST_F(RunLockTest, TheLockDecidesOnAnyLocalFileSystem) {
  const RunLock lock = MakeRunLock(fd_.get());
  const Runner runner = lock.HeldBy(base::ProcessIdentity::Self());
  const test::TempDir copy("/dev/shm");
  fs::copy_file(dir_ / lock.file, copy / lock.file);
  const base::UniqueFd dir = base::OpenDirectory(copy.path());
  EXPECT_EQ(StateOf(runner, dir.get(), "upper.ext4"), RunState::kEnded);
  EXPECT_FALSE(IsOwner(runner, dir.get()));
  EXPECT_TRUE(IsOwner(runner, fd_.get()));
}

TEST_F(RunLockTest, TheOwnerIsKnownByTheFileThatItHasOpen) {
  RunLock lock = MakeRunLock(fd_.get());
  const Runner runner = lock.HeldBy(base::ProcessIdentity::Self());
  EXPECT_TRUE(IsOwner(EarlierRecord(), fd_.get()));
  struct flock unlock {};
  unlock.l_type = F_UNLCK;
  ASSERT_EQ(fcntl(lock.fd.get(), F_OFD_SETLK, &unlock), 0);
  EXPECT_TRUE(IsOwner(runner, fd_.get()));
  lock.fd.Reset(-1);
  EXPECT_FALSE(IsOwner(runner, fd_.get()));
}

// As in a copy of a home on FUSE, or on a file system without locks.
TEST_F(RunLockTest, TheOwnerOfTheOriginalDoesNotOwnACopy) {
  const RunLock lock = MakeRunLock(fd_.get());
  Runner runner = lock.HeldBy(base::ProcessIdentity::Self());
  runner.lock_domain.clear();
  const test::TempDir copy;
  const base::UniqueFd dir = base::OpenDirectory(copy.path());
  // Without the lock file, nothing shows that this is a copy.
  EXPECT_EQ(StateOf(runner, dir.get(), "upper.ext4"), RunState::kRuns);
  fs::copy_file(dir_ / lock.file, copy / lock.file);
  EXPECT_EQ(StateOf(runner, dir.get(), "upper.ext4"), RunState::kEnded);
  EXPECT_EQ(StateNow(runner), RunState::kRuns);
  runner.pid_namespace += 1;
  EXPECT_EQ(StateOf(runner, dir.get(), "upper.ext4"), RunState::kMayRun);
}

TEST_F(RunLockTest, RecordOfAnEarlierReleaseIsJudgedByItsProcess) {
  EXPECT_EQ(StateNow(EarlierRecord()), RunState::kRuns);
  Runner other = EarlierRecord();
  other.start_ticks -= 1;  // Another process of the same pid.
  EXPECT_EQ(StateNow(other), RunState::kEnded);
  Runner rebooted = EarlierRecord();
  rebooted.boot_id = "another";
  EXPECT_EQ(StateNow(rebooted), RunState::kEnded);
}

TEST_F(RunLockTest, RecordOfAnEarlierReleaseMayRunWhileItsDiskIsOpenForWriting) {
  Runner gone = EarlierRecord();
  gone.start_ticks -= 1;
  const base::UniqueFd disk = base::OpenAt(AT_FDCWD, (dir_ / "upper.ext4").c_str(), O_RDWR);
  EXPECT_EQ(StateNow(gone), RunState::kMayRun);
}

TEST_F(RunLockTest, ProcessThatHasEndedButWasNotWaitedForDoesNotRun) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  Runner runner = EarlierRecord();
  runner.pid = child;
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(StateNow(runner), RunState::kEnded);
}

}  // namespace
}  // namespace msb::vmm
