// SPDX-License-Identifier: Apache-2.0
//
// Reads bytes in order from a file, a pipe or a terminal.

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

// An InputStream represents a source of bytes that was opened by its path.
class InputStream {
 public:
  // Opens path for reading; a path that names a descriptor ("/dev/stdin", "/dev/fd/N") stands for
  // that descriptor. Does not wait for a writer if path is a named pipe. Throws kIO if path is
  // absent, cannot be opened, or is a directory.
  explicit InputStream(const std::filesystem::path& path);

  // Returns the size in bytes if the source is a regular file, and 0 otherwise.
  std::uint64_t size() const { return size_; }

  // Fills buffer, unless the stream ends earlier, and returns the number of bytes read, which is 0
  // at the end of the stream. Holes of a file are not read, but returned as zeros. Calls check
  // before each read and every 50 ms while it waits; check throws to stop it.
  std::size_t Read(std::span<std::byte> buffer, const std::function<void()>& check);

 private:
  // Waits up to 50 ms for bytes. Returns false if there is still nothing to read.
  bool Await() const;
  // Reads up to size bytes. Returns 0 at the end of the stream, and nullopt if no bytes have
  // arrived yet.
  std::optional<std::size_t> ReadSome(std::byte* buffer, std::size_t size) const;
  // Returns how many bytes from the current position on, at most limit, are in a hole of the file.
  std::uint64_t BytesInHole(std::uint64_t limit) const;

  std::filesystem::path path_;
  UniqueFd fd_;
  bool is_file_ = false;
  std::uint64_t size_ = 0;
  std::uint64_t position_ = 0;  // Bytes read so far.
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_INPUT_STREAM_H_
