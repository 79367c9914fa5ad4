// SPDX-License-Identifier: Apache-2.0
//
// Runs code in a child process and interferes with one of its system calls. By trying each call in
// turn, a test finds out what a crash or a failing disk leaves behind.

#ifndef MSB_TESTS_SUPPORT_SYSCALL_TRACER_H_
#define MSB_TESTS_SUPPORT_SYSCALL_TRACER_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <set>
#include <string_view>

namespace msb::test {

struct TracedRun {
  bool interfered = false;  // False if the code made fewer calls and ended by itself.
  long syscall = -1;        // Number of the call that was interfered with.
  int exit_status = -1;     // Exit status of the child; -1 if it was killed.
};

// Runs code in a child, which exits with the status that code returns. Kills the child (SIGKILL)
// before the n-th system call of its main thread, counted from 0.
TracedRun KillAtSyscall(int n, const std::function<int()>& code);

// A system call that is about to be made, numbered as in <sys/syscall.h>.
struct SystemCall {
  long number = -1;
  std::array<std::uint64_t, 6> arguments = {};
  pid_t process = -1;  // The process that makes it.

  // Returns true if the call sends a message that contains text, with sendto(2).
  bool Sends(std::string_view text) const;
};

// Like KillAtSyscall, but calls interfere with the pid of the child before the n-th system call for
// which matches returns true, counted from 0. The child is stopped meanwhile and then continues,
// unless it was killed. x86-64 only.
TracedRun InterfereAtSyscall(int n, const std::function<bool(const SystemCall&)>& matches,
                             const std::function<int()>& code,
                             const std::function<void(pid_t child)>& interfere);

// Like KillAtSyscall, but makes the n-th of the given calls, counted from 0, fail with error
// instead of killing the child. The numbers are as in <sys/syscall.h>. x86-64 only.
TracedRun FailSyscall(int n, const std::set<long>& syscalls, int error,
                      const std::function<int()>& code);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_SYSCALL_TRACER_H_
