// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/line_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>

#include "src/base/file.h"
#include "src/base/unix_socket.h"

namespace msb::vmm {

bool LineReader::Receive(const Context& ctx, int socket, std::size_t max_bytes) {
  std::array<char, 1 << 16> buffer;
  const std::size_t length =
      base::ReceiveSome(ctx, socket, std::span(buffer).first(std::min(buffer.size(), max_bytes)));
  received_.append(buffer.data(), length);
  return length != 0;
}

std::optional<std::string> LineReader::Next(const Context& ctx, int socket, std::size_t max_bytes) {
  for (std::size_t searched = 0;;) {
    const std::size_t end = received_.find('\n', searched);
    searched = received_.size();
    if (std::min(end, searched) > max_bytes) {
      throw std::length_error(fmt::format("a message of more than {} bytes", max_bytes));
    }
    if (end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    if (!Receive(ctx, socket, max_bytes + 1 - searched)) return std::nullopt;
  }
}

bool LineReader::SkipPast(const Context& ctx, int socket, char byte) {
  for (;;) {
    const std::size_t found = received_.find(byte);
    skipped_bytes_ += std::min(found, received_.size());
    if (found != std::string::npos) {
      received_.erase(0, found + 1);
      return true;
    }
    received_.clear();
    ctx.Check();  // The other side might send without end.
    if (!Receive(ctx, socket, std::string::npos)) return false;
  }
}

std::uint64_t NewMessageId() {
  constexpr std::size_t kHexDigits = 12;
  return std::stoull(base::RandomSuffix().substr(0, kHexDigits), nullptr, 16);
}

}  // namespace msb::vmm
