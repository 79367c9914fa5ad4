// SPDX-License-Identifier: Apache-2.0
//
// Encodes and decodes Base64 (RFC 4648, section 4).

#ifndef MSB_SRC_BASE_BASE64_H_
#define MSB_SRC_BASE_BASE64_H_

#include <optional>
#include <string>
#include <string_view>

namespace msb::base {

// Returns bytes in Base64, with padding.
std::string Base64Encode(std::string_view bytes);

// Returns the bytes that text encodes, or nullopt if text is not Base64 with padding.
std::optional<std::string> Base64Decode(std::string_view text);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_BASE64_H_
