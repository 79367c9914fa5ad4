// SPDX-License-Identifier: Apache-2.0
//
// A file in memory that the library can open by its path.

#ifndef MSB_TESTS_FUZZ_MEMORY_FILE_H_
#define MSB_TESTS_FUZZ_MEMORY_FILE_H_

#include <fcntl.h>
#include <sys/mman.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "src/base/file.h"

namespace msb::fuzz {

class MemoryFile {
 public:
  explicit MemoryFile(const char* name) : fd_(memfd_create(name, MFD_CLOEXEC)) {}

  int fd() const { return fd_.get(); }
  std::filesystem::path Path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

  base::UniqueFd OpenToRead() const {
    return base::UniqueFd(open(Path().c_str(), O_RDONLY | O_CLOEXEC));
  }

  // Replaces the whole content.
  void Fill(std::string_view content) const {
    Resize(0);
    Write(content, 0);
  }
  void Resize(std::uint64_t size) const { base::Resize(fd_.get(), size); }
  void Write(std::string_view content, std::uint64_t offset) const {
    base::WriteExactly(fd_.get(), content.data(), content.size(), offset);
  }

 private:
  base::UniqueFd fd_;
};

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_MEMORY_FILE_H_
