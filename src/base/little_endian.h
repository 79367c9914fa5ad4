// SPDX-License-Identifier: Apache-2.0
//
// Converts integers to and from little-endian byte order, which zstd and the integrity trees use.

#ifndef MSB_SRC_BASE_LITTLE_ENDIAN_H_
#define MSB_SRC_BASE_LITTLE_ENDIAN_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace msb::base {

// Returns the integer that bytes, at most 8 of them, encode in little-endian order.
inline std::uint64_t LoadLittleEndian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<std::uint64_t>(bytes[i]);
  }
  return value;
}

// Stores the low bytes.size() bytes of value, at most 8, in little-endian order.
inline void StoreLittleEndian(std::uint64_t value, std::span<std::byte> bytes) {
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(value);
    value >>= 8;
  }
}

}  // namespace msb::base

#endif  // MSB_SRC_BASE_LITTLE_ENDIAN_H_
