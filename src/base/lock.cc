// SPDX-License-Identifier: Apache-2.0

#include "src/base/lock.h"

#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "src/base/call_scope.h"
#include "src/base/file_system.h"
#include "src/base/fork.h"
#include "src/base/retry.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

// A lock that replaces flock(2) where a file system lacks it.
struct ProcessLock {
  dev_t device;
  ino_t inode;
  int fd;
};

struct ProcessLocks {
  std::mutex mutex;  // Guards the other members; locked only in a ForkSafeSection.
  std::uint64_t generation = 0;
  std::vector<ProcessLock> held;

  // Drops the locks of the parent, which a forked process does not inherit.
  void DropInherited() {
    if (generation != ForkGeneration()) held.clear();
    generation = ForkGeneration();
  }
};
constinit Lazy<ProcessLocks> process_locks;
// True once this process has taken a ProcessLock. On nearly all systems it never does.
constinit std::atomic<bool> has_process_locks = false;

bool TryLockInProcess(int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0) ThrowErrno("stat", fd);
  const ForkSafeSection section;
  ProcessLocks& locks = process_locks.Get();
  const std::lock_guard lock(locks.mutex);
  locks.DropInherited();
  const bool taken = std::any_of(locks.held.begin(), locks.held.end(), [&](const auto& other) {
    return other.device == st.st_dev && other.inode == st.st_ino;
  });
  if (taken) return false;
  locks.held.push_back({st.st_dev, st.st_ino, fd});
  has_process_locks = true;
  return true;
}

bool IsLockMissing(int error) { return error == ENOLCK || IsUnsupported(error); }

}  // namespace

void ReleaseLock(int fd) {
  flock(fd, LOCK_UN);
  if (!has_process_locks) return;
  const ForkSafeSection section;
  ProcessLocks& locks = process_locks.Get();
  const std::lock_guard lock(locks.mutex);
  locks.DropInherited();
  std::erase_if(locks.held, [&](const auto& other) { return other.fd == fd; });
}

bool TryLock(int fd, LockMode mode) {
  const int operation = (mode == LockMode::kShared ? LOCK_SH : LOCK_EX) | LOCK_NB;
  if (Retry([&] { return flock(fd, operation); }) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (!IsLockMissing(errno)) ThrowErrno("lock", fd);
    LogOnce("flock", "the file system of " + PathOf(fd) +
                         " does not support locks (flock): only one process at a time may change "
                         "snapshots and sandboxes there");
    if (!TryLockInProcess(fd)) return false;
  }
  NoteLocked(fd);
  return true;
}

bool IsLockOfProcess(int fd) {
  if (!has_process_locks) return false;
  const ForkSafeSection section;
  ProcessLocks& locks = process_locks.Get();
  const std::lock_guard lock(locks.mutex);
  locks.DropInherited();
  return std::any_of(locks.held.begin(), locks.held.end(),
                     [&](const auto& other) { return other.fd == fd; });
}

void Lock(const Context& ctx, int fd, LockMode mode) {
  // flock(2) has no time-out, and a blocking call would not notice a cancellation.
  while (!TryLock(fd, mode)) {
    ctx.Check();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

LockedFd::~LockedFd() {
  if (fd_) ReleaseLock(fd_.get());
}

void LockedFd::LeaveLocked() {
  // Other processes do not see a lock of this process, so none can keep it.
  if (fd_ && !IsLockOfProcess(fd_.get())) ForgetLock(fd_.get());
  fd_.Reset(-1);
}

}  // namespace msb::base
