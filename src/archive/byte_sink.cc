// SPDX-License-Identifier: Apache-2.0

#include "src/archive/byte_sink.h"

#include <algorithm>
#include <array>

namespace msb::archive {

void ByteSink::WriteZeros(std::uint64_t count) {
  static constexpr std::array<std::byte, 64 << 10> kZeros{};
  while (count > 0) {
    const std::uint64_t step = std::min<std::uint64_t>(count, kZeros.size());
    Write(std::span(kZeros).first(step));
    count -= step;
  }
}

}  // namespace msb::archive
