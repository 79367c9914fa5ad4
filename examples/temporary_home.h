// SPDX-License-Identifier: Apache-2.0
//
// A home for an example: a temporary directory with a disk image in it.

#ifndef MSB_EXAMPLES_TEMPORARY_HOME_H_
#define MSB_EXAMPLES_TEMPORARY_HOME_H_

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

namespace example {

// A TemporaryHome owns a new directory, which its destructor deletes. All sandboxes in the
// directory must have ended by then.
class TemporaryHome {
 public:
  TemporaryHome() : path_(std::filesystem::temp_directory_path() / "msb-example-XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) {
      throw std::system_error(errno, std::generic_category(), "cannot create " + path_);
    }
  }
  TemporaryHome(const TemporaryHome&) = delete;
  TemporaryHome& operator=(const TemporaryHome&) = delete;
  ~TemporaryHome() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  // Returns the path of the directory.
  const std::string& Path() const { return path_; }

  // Creates a raw disk image of 64 MiB in the directory, whose first data_mib MiB are data, and
  // returns its path.
  std::string MakeImage(std::size_t data_mib = 4) const {
    const std::string path = path_ + "/base.img";
    std::ofstream file(path, std::ios::binary);
    for (std::size_t i = 0; i < data_mib; ++i) file << std::string(1 << 20, 'a');
    file.close();
    std::filesystem::resize_file(path, 64 << 20);
    return path;
  }

 private:
  std::string path_;
};

}  // namespace example

#endif  // MSB_EXAMPLES_TEMPORARY_HOME_H_
