// SPDX-License-Identifier: Apache-2.0

#include "src/base/absent_path.h"

#include <sys/stat.h>

namespace msb::base {

std::filesystem::path NearestExisting(std::filesystem::path path) {
  struct stat st;
  while (!path.empty() && lstat(path.c_str(), &st) != 0) {
    if (!path.has_relative_path()) return {};
    path = path.parent_path();
  }
  return path;
}

std::filesystem::path DanglingLinkIn(const std::filesystem::path& path) {
  std::filesystem::path existing = NearestExisting(path);
  struct stat st;
  const bool is_dangling = !existing.empty() && lstat(existing.c_str(), &st) == 0 &&
                           S_ISLNK(st.st_mode) && stat(existing.c_str(), &st) != 0;
  return is_dangling ? existing : std::filesystem::path();
}

}  // namespace msb::base
