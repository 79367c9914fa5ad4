#include "src/base/new_directory.h"

#include <unistd.h>

#include <system_error>

namespace msb::base {

NewDirectory::NewDirectory(const std::filesystem::path& path) {
  std::error_code error;
  for (std::filesystem::path missing = path;
       !std::filesystem::exists(missing, error) && missing.has_relative_path();
       missing = missing.parent_path()) {
    made_.push_back(missing);
  }
  try {
    fd_ = MakeDirectory(path);
  } catch (...) {
    Remove();
    throw;
  }
}

NewDirectory::~NewDirectory() { Remove(); }

void NewDirectory::Remove() {
  // Takes only empty directories, so neither what somebody has put there nor what was not made.
  for (const std::filesystem::path& path : made_) rmdir(path.c_str());
}

}  // namespace msb::base
