// Names and texts that users give.

#ifndef MSB_SRC_BASE_TEXT_H_
#define MSB_SRC_BASE_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace msb::base {

bool IsUtf8(std::string_view text);

// True if text has one of ASCII's control characters.
bool HasControlCharacter(std::string_view text);

// Throws kInvalidConfig unless name is a bare identifier: 1 to max_bytes bytes of UTF-8, no '/',
// '\', ':' or control characters, no leading '.' or '~'. what is "snapshot" or "sandbox".
void CheckBareName(std::string_view what, std::string_view name, std::size_t max_bytes);

// True for what names exactly one entry of a directory: not empty, no '/' or NUL, not "." or "..",
// at most 255 bytes.
bool IsPlainFileName(std::string_view name);

// text with what is not printable ASCII or UTF-8 escaped, cut to max_bytes: for messages.
std::string Quoted(std::string_view text, std::size_t max_bytes = 200);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_TEXT_H_
