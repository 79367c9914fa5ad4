// SPDX-License-Identifier: Apache-2.0
//
// What the standard streams can show.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_TERMINAL_H_
#define MSB_TOOLS_MSB_SNAPSHOT_TERMINAL_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "msb/context.h"

namespace msb::program {

enum class Stream { kInput = 0, kOutput = 1, kError = 2 };

// Opens each standard stream that is closed so that using it fails. Otherwise the next file that is
// opened would take its place, and the output of the program would be written to that file.
void OpenStandardStreams();

// Returns whether the stream is a terminal.
bool IsTerminal(Stream stream);

// Returns whether the stream is a terminal that can move its cursor: TERM is set and not "dumb".
bool CanMoveCursor(Stream stream);

// Returns the current number of columns of a terminal, or 80 if it is not known.
std::size_t TerminalColumns(Stream stream);

// Returns whether the locale's encoding is UTF-8.
bool IsUtf8Locale();

// Reads standard input up to its end.
// Throws kCancelled if ctx ends first.
// Throws kInvalidArgument if it is longer than limit bytes.
// Throws kIO if it cannot be read.
std::string ReadInput(const Context& ctx, std::size_t limit);

enum class Color { kGreen, kYellow, kRed, kBold };

// Returns text in this color for the stream, or text itself if the stream cannot show colors or the
// environment variable NO_COLOR is set and not empty.
std::string Colored(Color color, std::string_view text, Stream stream = Stream::kOutput);

// Writes text to standard output, which is buffered, or to standard error. The first failure to
// write is kept for FlushOutput, so that a closed pipe does not end a command in the middle.
void Put(std::string_view text, Stream stream = Stream::kOutput);

// Writes what is buffered. Returns the errno of the first failure to write to standard output, or
// 0.
int FlushOutput();

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_TERMINAL_H_
