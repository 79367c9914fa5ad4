// SPDX-License-Identifier: Apache-2.0
//
// environments make ROOT: makes the home on which the operations are tried.
// environments try ROOT OUT [CALL...]: tries them as if the file system did not support these
// calls: rename-flags, links, locks, holes, directory-flush, clone, kernel-copy. Prints a line for
// each operation: its name, "reads" or "writes" (whether it needs a writable home), and "ok",
// "skipped" or the error, separated by tabs. The exit status is 0 even if operations failed. Push
// and Pull use the repository MSB_TEST_REPOSITORY (HOST:PORT/NAME), and are skipped without one.

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tests/environments/operations.h"
#include "tests/support/missing_calls.h"

namespace {

std::string Try(const char* root, const char* out) {
  using namespace msb::test;
  const char* repository = std::getenv("MSB_TEST_REPOSITORY");
  std::string lines;
  for (auto& result : TryOperations(root, out, repository == nullptr ? "" : repository)) {
    std::replace(result.error.begin(), result.error.end(), '\n', ' ');
    lines += result.name + (result.access == Access::kReads ? "\treads\t" : "\twrites\t");
    if (result.outcome == Outcome::kSkipped) {
      lines += "skipped\n";
    } else {
      lines += (result.error.empty() ? "ok" : result.error) + "\n";
    }
  }
  return lines;
}

msb::test::MissingCall Missing(std::string_view call) {
  using namespace msb::test;
  if (call == "rename-flags") return NoRenameFlags(EINVAL);
  if (call == "links") return NoLinks(EPERM);
  if (call == "locks") return NoLocks(ENOLCK);
  if (call == "holes") return NoHoles(EINVAL);
  if (call == "directory-flush") return NoDirectoryFlush(EINVAL);
  if (call == "clone") return NoClone(EOPNOTSUPP);
  if (call == "kernel-copy") return NoKernelCopy(EIO);
  throw std::invalid_argument("no call " + std::string(call));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  try {
    if (command == "make" && argc == 3) {
      msb::test::MakeEnvironmentHome(argv[2]);
      return 0;
    }
    if (command == "try" && argc >= 4) {
      std::vector<msb::test::MissingCall> missing;
      for (int i = 4; i < argc; ++i) missing.push_back(Missing(argv[i]));
      const auto code = [&] { return Try(argv[2], argv[3]); };
      const std::string lines = missing.empty() ? code() : msb::test::RunWithout(missing, code);
      std::fputs(lines.c_str(), stdout);
      return 0;
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  std::fprintf(stderr, "usage: environments make ROOT | try ROOT OUT [CALL...]\n");
  return 2;
}
