// Numbers in network byte order, as qcow2 has them.

#ifndef MSB_SRC_BASE_BIG_ENDIAN_H_
#define MSB_SRC_BASE_BIG_ENDIAN_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace msb::base {

// The number that bytes, at most 8, are.
inline std::uint64_t LoadBigEndian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (const std::byte byte : bytes) value = value << 8 | static_cast<std::uint64_t>(byte);
  return value;
}

// Fills bytes, at most 8, with the lowest bytes of value.
inline void StoreBigEndian(std::uint64_t value, std::span<std::byte> bytes) {
  for (std::size_t i = bytes.size(); i-- > 0; value >>= 8) bytes[i] = static_cast<std::byte>(value);
}

}  // namespace msb::base

#endif  // MSB_SRC_BASE_BIG_ENDIAN_H_
