// SPDX-License-Identifier: Apache-2.0
//
// A LineReader splits the bytes that arrive on a socket into lines, in which QEMU and its guest
// agent send their messages.

#ifndef MSB_SRC_VMM_LINE_READER_H_
#define MSB_SRC_VMM_LINE_READER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "msb/context.h"

namespace msb::vmm {

// The functions take the socket, which must be connected and non-blocking, and the same one each
// time. They throw kCancelled if ctx has ended, even if what they wait for has arrived, after which
// they may be called again, and kIO if receiving fails. So a loop that calls them ends with ctx,
// regardless of what the other side sends.
class LineReader {
 public:
  // Returns the next line, without its end, or nullopt at the end of the stream, even if the stream
  // ends within a line.
  // Throws std::length_error if the line has more than max_bytes. The line is still to be read
  // then.
  std::optional<std::string> Next(const Context& ctx, int socket, std::size_t max_bytes);

  // Discards all bytes up to and including the next occurrence of byte, and any occurrences that
  // follow it immediately and have arrived. Returns false if the stream ends first.
  bool SkipPast(const Context& ctx, int socket, char byte);

  // Returns the number of bytes that have arrived of the next line, if Next has not returned it.
  std::size_t pending_bytes() const { return Pending().size(); }
  // Returns the number of bytes that SkipPast has discarded, without the one that it looked for in
  // each call.
  std::uint64_t skipped_bytes() const { return skipped_bytes_; }

 private:
  // Appends bytes to received_. Returns false at the end of the stream.
  bool Receive(const Context& ctx, int socket);
  std::string_view Pending() const { return std::string_view(received_).substr(begin_); }

  std::string received_;
  std::size_t begin_ = 0;  // The number of bytes at the start of received_ that were processed.
  std::uint64_t skipped_bytes_ = 0;
};

// Returns a number that no other client has used for its messages, and that a JSON reader
// represents exactly, as it does the numbers that follow.
std::uint64_t NewMessageId();

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_LINE_READER_H_
