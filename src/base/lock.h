// SPDX-License-Identifier: Apache-2.0
//
// Takes advisory locks on files and directories (flock(2)).
//
// On a file system without locks, a lock excludes only other threads of this process. This is
// logged once.

#ifndef MSB_SRC_BASE_LOCK_H_
#define MSB_SRC_BASE_LOCK_H_

#include <utility>

#include "msb/context.h"
#include "src/base/descriptor.h"

namespace msb::base {

// A LockMode determines whether a lock excludes all other locks, or only exclusive ones. On a file
// system without locks, every lock is exclusive.
enum class LockMode { kExclusive, kShared };

// Takes an advisory lock on an open file or directory. Returns false if another open file
// description holds a lock that excludes it. The lock is released when fd is closed.
bool TryLock(int fd, LockMode mode = LockMode::kExclusive);
// Works like TryLock, but waits for the lock. Throws kCancelled if ctx ends first.
void Lock(const Context& ctx, int fd, LockMode mode = LockMode::kExclusive);
// Returns true if fd is locked on a file system without locks, so that other processes do not see
// the lock.
bool IsLockOfProcess(int fd);

// A LockedFd owns a descriptor and the lock on it. It releases the lock even if a child process
// that was forked without exec still has a copy of the descriptor.
class LockedFd {
 public:
  LockedFd() = default;
  // fd must be locked, or empty.
  explicit LockedFd(UniqueFd fd) : fd_(std::move(fd)) {}
  LockedFd(LockedFd&&) noexcept = default;
  LockedFd& operator=(LockedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~LockedFd();

  int get() const { return fd_.get(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }
  // Closes the descriptor. The lock stays as long as another process has a copy of the descriptor.
  void LeaveLocked();

 private:
  UniqueFd fd_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_LOCK_H_
