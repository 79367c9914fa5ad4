// Runs code in a child process and interferes with one of its system calls, so that a test can try
// every one in turn: what a crash, or a disk that fails, leaves behind.

#ifndef MSB_TESTS_SUPPORT_SYSCALL_TRACER_H_
#define MSB_TESTS_SUPPORT_SYSCALL_TRACER_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <set>

namespace msb::test {

struct TracedRun {
  bool interfered = false;  // False: the code made fewer calls, and ended by itself.
  long syscall = -1;        // The number of the call interfered with.
  int exit_status = -1;     // What the child returned; -1 if it was killed.
};

// Runs code, which returns an exit status, in a child. Kills it (SIGKILL) before the n-th system
// call, counted from 0, that its main thread makes.
TracedRun KillAtSyscall(int n, const std::function<int()>& code);

// A system call that is about to be made; numbers as in <sys/syscall.h>.
struct SystemCall {
  long number = -1;
  std::array<std::uint64_t, 6> arguments = {};
};

// Instead calls interfere, with the pid of the child, before the n-th system call for which matches
// is true. The child is stopped meanwhile, and then goes on unless it was killed. x86-64 only.
TracedRun InterfereAtSyscall(int n, const std::function<bool(const SystemCall&)>& matches,
                             const std::function<int()>& code,
                             const std::function<void(pid_t child)>& interfere);

// Instead lets the n-th of these calls (numbers as in <sys/syscall.h>) fail with error. The child
// and its exit status are as ever. x86-64 only.
TracedRun FailSyscall(int n, const std::set<long>& syscalls, int error,
                      const std::function<int()>& code);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_SYSCALL_TRACER_H_
