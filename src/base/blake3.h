// SPDX-License-Identifier: Apache-2.0
//
// Computes BLAKE3 hashes incrementally.

#ifndef MSB_SRC_BASE_BLAKE3_H_
#define MSB_SRC_BASE_BLAKE3_H_

#include <blake3.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "src/base/little_endian.h"

namespace msb::base {

// A Blake3 computes the hash of the bytes that are added to it.
class Blake3 {
 public:
  using Hash = std::array<std::uint8_t, 32>;

  Blake3() { blake3_hasher_init(&hasher_); }
  Blake3& Add(const void* data, std::size_t size) {
    blake3_hasher_update(&hasher_, data, size);
    return *this;
  }
  Blake3& Add(std::string_view text) { return Add(text.data(), text.size()); }
  Blake3& Add(const Hash& hash) { return Add(hash.data(), hash.size()); }
  template <typename Integer>
  Blake3& AddLittleEndian(Integer value) {
    std::array<std::byte, sizeof value> bytes{};
    StoreLittleEndian(value, bytes);
    return Add(bytes.data(), bytes.size());
  }
  Hash Finish() const {
    Hash hash;
    blake3_hasher_finalize(&hasher_, hash.data(), hash.size());
    return hash;
  }

 private:
  blake3_hasher hasher_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_BLAKE3_H_
