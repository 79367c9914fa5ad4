// Reading bytes in order from what may be a file, a pipe or a terminal.

#ifndef MSB_SRC_BASE_INPUT_STREAM_H_
#define MSB_SRC_BASE_INPUT_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>

#include "src/base/file.h"

namespace msb::base {

class InputStream {
 public:
  // Does not wait for somebody to write to a named pipe. kIO: there is nothing to read at path.
  explicit InputStream(const std::filesystem::path& path);

  // The size of a regular file, bytes; 0 for anything else.
  std::uint64_t size() const { return size_; }

  // Fills the buffer, but for the last bytes of the stream; 0 at its end. While it waits it calls
  // check, which throws to stop it, every 50 ms.
  std::size_t Read(std::span<std::byte> buffer, const std::function<void()>& check);

 private:
  // False after 50 ms with nothing to read.
  bool Await() const;

  std::filesystem::path path_;
  UniqueFd fd_;
  bool is_file_ = false;
  std::uint64_t size_ = 0;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_INPUT_STREAM_H_
