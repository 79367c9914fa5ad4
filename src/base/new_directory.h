// A directory that goes again, with the parents that it needed, unless it is kept.

#ifndef MSB_SRC_BASE_NEW_DIRECTORY_H_
#define MSB_SRC_BASE_NEW_DIRECTORY_H_

#include <filesystem>
#include <vector>

#include "src/base/file.h"

namespace msb::base {

class NewDirectory {
 public:
  // Makes the directory, which may exist, and its parents. path is absolute.
  explicit NewDirectory(const std::filesystem::path& path);
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;
  // Removes those that it made, as far as they are empty.
  ~NewDirectory();

  int fd() const { return fd_.get(); }
  void Keep() { made_.clear(); }

 private:
  void Remove();

  std::vector<std::filesystem::path> made_;  // The innermost first.
  UniqueFd fd_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_NEW_DIRECTORY_H_
