// SPDX-License-Identifier: Apache-2.0

#include "src/base/new_directory.h"

#include <unistd.h>

namespace msb::base {

NewDirectory::NewDirectory(const std::filesystem::path& path) {
  try {
    fd_ = MakeDirectory(path, [&](const std::filesystem::path& made) { made_.push_back(made); });
  } catch (...) {
    Remove();
    throw;
  }
}

NewDirectory::~NewDirectory() { Remove(); }

void NewDirectory::Remove() {
  // rmdir(2) leaves a directory in which another process has put something. A process that was
  // about to do so creates the directory again (MakeDirectory).
  for (auto path = made_.rbegin(); path != made_.rend(); ++path) rmdir(path->c_str());
}

}  // namespace msb::base
