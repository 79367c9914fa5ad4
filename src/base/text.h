// SPDX-License-Identifier: Apache-2.0
//
// Checks and quotes names and texts that users provide.

#ifndef MSB_SRC_BASE_TEXT_H_
#define MSB_SRC_BASE_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace msb::base {

bool IsUtf8(std::string_view text);

// Returns true if text has an ASCII control character.
bool HasControlCharacter(std::string_view text);

// Throws kInvalidConfig unless name is a bare identifier: 1 to max_bytes bytes of UTF-8 that
// contain no '/', '\', ':' or control character, and do not begin with '.' or '~'. what is
// "snapshot" or "sandbox", for the message.
void CheckBareName(std::string_view what, std::string_view name, std::size_t max_bytes);

// Returns true if name can be the name of a directory entry: it has 1 to 255 bytes, contains no '/'
// or NUL, and is neither "." nor "..".
bool IsPlainFileName(std::string_view name);

// Returns a number with its noun, such as "1 byte" or "3 bytes", for messages.
std::string Count(std::uint64_t number, std::string_view noun);

// Returns text in a form for messages: control characters, and bytes that are not UTF-8, are
// escaped ("\x0a"), and text that is longer than about max_bytes bytes is cut and ends with "…".
std::string Quoted(std::string_view text, std::size_t max_bytes = 200);

// Returns text with the letters A to Z in lower case.
std::string LowerCase(std::string_view text);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_TEXT_H_
