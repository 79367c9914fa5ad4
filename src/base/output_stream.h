// SPDX-License-Identifier: Apache-2.0
//
// Writes bytes in order to a pipe, a socket or another stream.

#ifndef MSB_SRC_BASE_OUTPUT_STREAM_H_
#define MSB_SRC_BASE_OUTPUT_STREAM_H_

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>

#include "msb/context.h"
#include "src/base/descriptor.h"

namespace msb::base {

// An OutputStream represents a destination that can only be written from beginning to end.
class OutputStream {
 public:
  // Opens path if it names a descriptor ("/dev/stdout", "/dev/fd/N") or is a named pipe, whose
  // reader it waits for. Returns nullopt for any other path, also if nothing exists there.
  // Throws kIO if the descriptor or pipe cannot be opened.
  static std::optional<OutputStream> Open(const Context& ctx, const std::filesystem::path& path);

  // Writes all bytes, and checks ctx while it waits for the reader. A write to a pipe that has no
  // reader any more throws kIO and raises no SIGPIPE.
  void Write(const Context& ctx, std::span<const std::byte> bytes);

 private:
  OutputStream(UniqueFd fd, std::filesystem::path path);
  // Writes some bytes without waiting. Returns their number, which is 0 if there is no room.
  std::size_t WriteSome(std::span<const std::byte> bytes) const;

  UniqueFd fd_;
  std::filesystem::path path_;  // For messages.
  bool is_file_ = false;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_OUTPUT_STREAM_H_
