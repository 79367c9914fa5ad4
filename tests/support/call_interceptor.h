// SPDX-License-Identifier: Apache-2.0
//
// Runs code in a child process and decides for each of its file-system calls, in all of its
// threads, whether to let it through, make it fail with an error of the test's choice, or kill the
// process before it. seccomp stops the child only at the requested calls, so a run costs little
// more than the code itself. x86-64 Linux only.

#ifndef MSB_TESTS_SUPPORT_CALL_INTERCEPTOR_H_
#define MSB_TESTS_SUPPORT_CALL_INTERCEPTOR_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace msb::test {

// A system call that is about to be made, numbered as in <sys/syscall.h>.
struct InterceptedCall {
  pid_t thread = -1;
  long number = -1;
  std::array<std::uint64_t, 6> arguments = {};

  // Returns the string in the child's memory that the i-th argument points to.
  std::string Text(std::size_t i) const;
  // Returns the path that the descriptor in the i-th argument was opened with, or "pipe:[1]" and
  // the like if it has none. Returns an empty string if the descriptor is not open.
  std::string PathOf(std::size_t i) const;
  // Returns the call's name and the file that it operates on: "openat(…/home/x, O_CREAT)".
  std::string Describe() const;
};

// Decides on a call. Returns 0 to let it through, kLetAllThrough to let it and all later calls
// through, kKillChild to kill the child, or the errno that the call fails with.
using Decide = std::function<int(const InterceptedCall& call)>;
inline constexpr int kKillChild = -1;
inline constexpr int kLetAllThrough = -2;

struct InterceptedRun {
  int interferences = 0;    // Number of calls that were not let through.
  std::string first = {};   // Description of the first of them.
  bool killed = false;      // Whether kKillChild killed the child.
  std::string crash = {};   // How the child ended, unless by kKillChild or by returning from code.
  std::string report = {};  // What code returned, or the message of what it threw.
};

// Calls code in a child process. Once code has called its argument, decide is called for each call
// whose number is in calls. A report of 64 KiB or more is truncated. A child that runs for more
// than a minute is killed and counts as crashed. The test must have no other child processes.
// Both processes run on one CPU, which makes a stop cheaper.
InterceptedRun RunIntercepted(
    const std::vector<long>& calls, const Decide& decide,
    const std::function<std::string(const std::function<void()>& begin)>& code);

// Returns the calls that this interceptor can describe: nearly all that read or change a file
// system or create a descriptor.
const std::vector<long>& FileCalls();
// Return those of them for which MayChange, or CanFailWith this error, can be true. A run that
// intercepts only these is faster.
std::vector<long> CallsThatMayChange();
std::vector<long> CallsThatCanFailWith(int error);
// Returns true if the call may change something that another process can observe, locks included.
bool MayChange(const InterceptedCall& call);
// Returns true if the call can fail with this error on a real system.
bool CanFailWith(const InterceptedCall& call, int error);
// Returns true if the call fails when the disk is full.
bool NeedsSpace(const InterceptedCall& call);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_CALL_INTERCEPTOR_H_
