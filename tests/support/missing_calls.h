// SPDX-License-Identifier: Apache-2.0
//
// Runs code as if the file system or the kernel did not support certain system calls.

#ifndef MSB_TESTS_SUPPORT_MISSING_CALLS_H_
#define MSB_TESTS_SUPPORT_MISSING_CALLS_H_

#include <functional>
#include <string>
#include <vector>

#include "tests/support/call_interceptor.h"

namespace msb::test {

// A call that fails with error: always, or only if matches is set and returns true.
struct MissingCall {
  std::string name = {};  // Used in messages.
  long number = -1;       // Number as in <sys/syscall.h>.
  int error = 0;
  std::function<bool(const InterceptedCall& call)> matches = {};
};

// Makes renameat2 fail if any flag is set.
MissingCall NoRenameFlags(int error);
MissingCall NoLinks(int error);
MissingCall NoLocks(int error);
// Makes lseek fail for SEEK_DATA and SEEK_HOLE.
MissingCall NoHoles(int error);
// Makes fsync of a directory fail.
MissingCall NoDirectoryFlush(int error);
MissingCall NoClone(int error);
MissingCall NoKernelCopy(int error);

// Calls code in a child process in which these calls are missing. Returns what code returned, or
// the message of what it threw. If the child crashed, the result starts with how it ended. x86-64
// only.
std::string RunWithout(const std::vector<MissingCall>& missing,
                       const std::function<std::string()>& code);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_MISSING_CALLS_H_
