// SPDX-License-Identifier: Apache-2.0

#include "tests/support/missing_calls.h"

#include <linux/fs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <exception>
#include <filesystem>
#include <system_error>

namespace msb::test {

MissingCall NoRenameFlags(int error) {
  return {"renameat2", SYS_renameat2, error,
          [](const InterceptedCall& call) { return call.arguments[4] != 0; }};
}

MissingCall NoLinks(int error) { return {"linkat", SYS_linkat, error}; }

MissingCall NoLocks(int error) { return {"flock", SYS_flock, error}; }

MissingCall NoHoles(int error) {
  return {"lseek", SYS_lseek, error, [](const InterceptedCall& call) {
            return call.arguments[2] == SEEK_DATA || call.arguments[2] == SEEK_HOLE;
          }};
}

MissingCall NoDirectoryFlush(int error) {
  return {"fsync", SYS_fsync, error, [](const InterceptedCall& call) {
            std::error_code ignored;
            return std::filesystem::is_directory(call.PathOf(0), ignored);
          }};
}

MissingCall NoClone(int error) {
  return {"ioctl", SYS_ioctl, error,
          [](const InterceptedCall& call) { return call.arguments[1] == FICLONE; }};
}

MissingCall NoKernelCopy(int error) { return {"copy_file_range", SYS_copy_file_range, error}; }

std::string RunWithout(const std::vector<MissingCall>& missing,
                       const std::function<std::string()>& code) {
  std::vector<long> numbers;
  numbers.reserve(missing.size());
  for (const MissingCall& call : missing) numbers.push_back(call.number);
  const auto decide = [&](const InterceptedCall& call) {
    for (const MissingCall& candidate : missing) {
      if (call.number != candidate.number) continue;
      if (!candidate.matches || candidate.matches(call)) return candidate.error;
    }
    return 0;
  };
  const InterceptedRun run = RunIntercepted(numbers, decide, [&](const auto& begin) {
    begin();
    try {
      return code();
    } catch (const std::exception& e) {
      return std::string(e.what());
    }
  });
  if (run.crash.empty()) return run.report;
  return run.crash + " " + run.report;
}

}  // namespace msb::test
