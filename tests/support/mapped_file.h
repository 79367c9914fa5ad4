// SPDX-License-Identifier: Apache-2.0

#ifndef MSB_TESTS_SUPPORT_MAPPED_FILE_H_
#define MSB_TESTS_SUPPORT_MAPPED_FILE_H_

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>

namespace msb::test {

// A file that this process has mapped shared and writable, as a VMM may do, and no longer open.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path) : size_(std::filesystem::file_size(path)) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    bytes_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() { munmap(bytes_, size_); }

  // Writes to every page, without a change, so that later writes do not change the times of the
  // file until it is flushed.
  void Dirty() { Add(0); }
  // Changes every page.
  void Touch() { Add(1); }

 private:
  void Add(int number) {
    for (std::size_t i = 0; i < size_; i += 4096) {
      volatile char& byte = bytes_[i];
      byte = static_cast<char>(byte + number);
    }
  }

  const std::size_t size_;
  char* bytes_ = nullptr;
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_MAPPED_FILE_H_
