// SPDX-License-Identifier: Apache-2.0
//
// Defines UniqueFd, which owns a file descriptor, and the only functions of the library that open
// file descriptors. None of these functions returns a number from 0 to 2: if the program has closed
// its standard streams, output of the program would be written to a file with such a number. The
// functions do not use these numbers temporarily either, unless the program closes a standard
// stream at the same moment. tests/check_descriptors.sh finds code that opens descriptors in other
// ways.

#ifndef MSB_SRC_BASE_DESCRIPTOR_H_
#define MSB_SRC_BASE_DESCRIPTOR_H_

#include <sys/types.h>

#include <filesystem>
#include <utility>

namespace msb::base {

// A UniqueFd owns a file descriptor. When it closes the descriptor, it also releases the lock that
// NoteLocked has recorded for the descriptor, even if a forked process still has a copy.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(-1); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void Reset(int fd);
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// Keeps the descriptor numbers 0 to 2 in use while it exists: the numbers that the program has
// closed are occupied by descriptors that can be neither read nor written. Use it around calls of
// other libraries that open files. The functions below use it themselves.
class StandardStreamGuard {
 public:
  StandardStreamGuard();
  StandardStreamGuard(const StandardStreamGuard&) = delete;
  StandardStreamGuard& operator=(const StandardStreamGuard&) = delete;
  ~StandardStreamGuard();  // Preserves errno.
};

// Records that fd is locked (lock.h). The UniqueFd of fd then releases the lock when it closes fd,
// and processes that are forked from now on lose the descriptor (owned_descriptor.h).
void NoteLocked(int fd);
// Makes the UniqueFd of fd close it without releasing the lock.
void ForgetLock(int fd);
// Releases the lock on fd, if it has one. Implemented in lock.cc.
void ReleaseLock(int fd);

// The following functions set O_CLOEXEC. If they fail, they return an empty UniqueFd, or a pair of
// empty ones, with errno set, unless stated otherwise.

// Calls openat(2); dir may be AT_FDCWD.
UniqueFd OpenAt(int dir, const char* path, int flags, mode_t mode = 0);
// Duplicates a descriptor, as dup(2) does. Throws kIO if it fails.
UniqueFd Duplicate(int fd);
// Duplicates the descriptor that path names: "/dev/stdin", "/dev/stdout", "/dev/stderr" or
// "/dev/fd/N". Unlike opening such a path, this also works for sockets, and a file continues at its
// current position. Returns an empty UniqueFd for any other path. Throws kIO if there is no such
// descriptor.
UniqueFd DuplicateNamed(const std::filesystem::path& path);
// Creates a pipe. Returns its read end and its write end.
std::pair<UniqueFd, UniqueFd> OpenPipe();
// Creates a stream socket of the family AF_UNIX. flags is 0 or SOCK_NONBLOCK.
UniqueFd OpenUnixSocket(int flags);
// Calls socket(2).
UniqueFd OpenSocket(int family, int type, int protocol);
// Creates two stream sockets of the family AF_UNIX that are connected to each other.
std::pair<UniqueFd, UniqueFd> OpenUnixSocketPair();
// Calls memfd_create(2).
UniqueFd OpenMemoryFile(const char* name);
// Calls pidfd_open(2).
UniqueFd OpenProcess(pid_t pid);
// Returns true if the error of OpenProcess means that there are no such descriptors: kernels before
// Linux 5.3 lack them (ENOSYS), and old seccomp profiles refuse them (EPERM).
bool LacksProcessDescriptors(int error);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_DESCRIPTOR_H_
