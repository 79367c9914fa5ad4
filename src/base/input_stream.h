// Reading bytes in order from what may be a file, a pipe or a terminal.

#ifndef MSB_SRC_BASE_INPUT_STREAM_H_
#define MSB_SRC_BASE_INPUT_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>

#include "src/base/file.h"

namespace msb::base {

class InputStream {
 public:
  // Does not wait for somebody to write to a named pipe. kIO: there is nothing to read at path.
  explicit InputStream(const std::filesystem::path& path);

  // The size of a regular file, bytes; 0 for anything else.
  std::uint64_t size() const { return size_; }

  // Fills the buffer, but for the last bytes of the stream; 0 at its end. The holes of a file are
  // not read. While it waits it calls check, which throws to stop it, every 50 ms.
  std::size_t Read(std::span<std::byte> buffer, const std::function<void()>& check);

 private:
  // False after 50 ms with nothing to read.
  bool Await() const;
  // Up to size bytes of what comes next; 0 at the end, nothing if there is none yet.
  std::optional<std::size_t> ReadSome(std::byte* buffer, std::size_t size) const;
  // How many bytes of a file, at most limit, lie in a hole from here on.
  std::uint64_t BytesInHole(std::uint64_t limit) const;

  std::filesystem::path path_;
  UniqueFd fd_;
  bool is_file_ = false;
  std::uint64_t size_ = 0;
  std::uint64_t position_ = 0;  // In a regular file.
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_INPUT_STREAM_H_
