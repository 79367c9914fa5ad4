// SPDX-License-Identifier: Apache-2.0
//
// Creates a directory with its missing parents, and removes them again unless Keep() is called.

#ifndef MSB_SRC_BASE_NEW_DIRECTORY_H_
#define MSB_SRC_BASE_NEW_DIRECTORY_H_

#include <filesystem>
#include <vector>

#include "src/base/file.h"

namespace msb::base {

// A NewDirectory represents a directory that may have to be removed again.
class NewDirectory {
 public:
  // Opens the directory at path, which must be absolute, and creates it and its parents if they are
  // missing.
  explicit NewDirectory(const std::filesystem::path& path);
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;
  // Removes the directories that this object has created and that are empty, unless Keep() was
  // called.
  ~NewDirectory();

  int fd() const { return fd_.get(); }
  void Keep() { made_.clear(); }

 private:
  void Remove();

  std::vector<std::filesystem::path> made_;  // Outermost first.
  UniqueFd fd_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_NEW_DIRECTORY_H_
