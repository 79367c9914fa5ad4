#include "src/base/new_directory.h"

#include <system_error>

namespace msb::base {

NewDirectory::NewDirectory(const std::filesystem::path& path) {
  std::error_code error;
  for (std::filesystem::path missing = path;
       !std::filesystem::exists(missing, error) && missing.has_relative_path();
       missing = missing.parent_path()) {
    made_.push_back(missing);
  }
  fd_ = MakeDirectory(path);
}

NewDirectory::~NewDirectory() {
  std::error_code error;
  for (const std::filesystem::path& path : made_) {
    if (!std::filesystem::remove(path, error)) break;
  }
}

}  // namespace msb::base
