// SPDX-License-Identifier: Apache-2.0
//
// Makes file-system calls fail: by too few free descriptors, or by a file that cannot be deleted.

#ifndef MSB_TESTS_SUPPORT_LIMITS_H_
#define MSB_TESTS_SUPPORT_LIMITS_H_

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "tests/support/support.h"

namespace msb::test {

// Lowers the descriptor limit so that count descriptors with numbers from 3 on can be opened.
inline void LeaveDescriptors(int count) {
  constexpr int kFirst = STDERR_FILENO + 1;
  const int root = open("/", O_PATH | O_CLOEXEC);
  std::vector<int> spare = {fcntl(root, F_DUPFD_CLOEXEC, kFirst)};
  close(root);
  for (int i = 0; i < count; ++i) spare.push_back(fcntl(spare[0], F_DUPFD_CLOEXEC, kFirst));
  const int first_taken = *std::ranges::max_element(spare);
  const rlimit limit{static_cast<rlim_t>(first_taken), static_cast<rlim_t>(first_taken)};
  if (spare.back() < kFirst || setrlimit(RLIMIT_NOFILE, &limit) != 0) std::abort();
  for (const int fd : spare) close(fd);
}

// Makes a file immutable, so that even root cannot delete it, until Clear() or destruction.
class ImmutableFile {
 public:
  // The file may be moved while it is immutable, but not out of root.
  ImmutableFile(const std::filesystem::path& path, std::filesystem::path root)
      : root_(std::move(root)), set_(RunCommand("chattr +i " + path.native()).status == 0) {}
  ImmutableFile(const ImmutableFile&) = delete;
  ImmutableFile& operator=(const ImmutableFile&) = delete;
  ~ImmutableFile() { Clear(); }

  bool is_set() const { return set_; }
  void Clear() {
    if (std::exchange(set_, false)) RunCommand("chattr -R -i " + root_.native());
  }

 private:
  const std::filesystem::path root_;
  bool set_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_LIMITS_H_
