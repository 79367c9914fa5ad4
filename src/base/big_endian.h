// SPDX-License-Identifier: Apache-2.0
//
// Converts integers to and from big-endian (network) byte order, which qcow2 uses.

#ifndef MSB_SRC_BASE_BIG_ENDIAN_H_
#define MSB_SRC_BASE_BIG_ENDIAN_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace msb::base {

// Returns the integer that bytes, at most 8 of them, encode in big-endian order.
inline std::uint64_t LoadBigEndian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (const std::byte byte : bytes) value = value << 8 | static_cast<std::uint64_t>(byte);
  return value;
}

// Stores the low bytes.size() bytes of value, at most 8, in big-endian order.
inline void StoreBigEndian(std::uint64_t value, std::span<std::byte> bytes) {
  for (std::size_t i = bytes.size(); i-- > 0; value >>= 8) bytes[i] = static_cast<std::byte>(value);
}

}  // namespace msb::base

#endif  // MSB_SRC_BASE_BIG_ENDIAN_H_
