// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/line_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "src/base/file.h"
#include "src/base/unix_socket.h"

namespace msb::vmm {

bool LineReader::Receive(const Context& ctx, int socket) {
  std::array<char, 1 << 16> buffer;
  const std::size_t length = base::ReceiveSome(ctx, socket, buffer);
  received_.erase(0, std::exchange(begin_, 0));
  received_.append(buffer.data(), length);
  return length != 0;
}

std::optional<std::string> LineReader::Next(const Context& ctx, int socket, std::size_t max_bytes) {
  for (std::size_t searched = 0;;) {
    ctx.Check();  // The other side might send lines without end.
    const std::string_view pending = Pending();
    const std::size_t end = pending.substr(0, max_bytes + 1).find('\n', searched);
    if (end != std::string_view::npos) {
      std::string line(pending.substr(0, end));
      begin_ += end + 1;
      return line;
    }
    if (pending.size() > max_bytes) {
      throw std::length_error(fmt::format("a message of more than {} bytes", max_bytes));
    }
    searched = pending.size();
    if (!Receive(ctx, socket)) return std::nullopt;
  }
}

bool LineReader::SkipPast(const Context& ctx, int socket, char byte) {
  for (;;) {
    ctx.Check();  // The other side might send without end.
    const std::string_view pending = Pending();
    const std::size_t found = std::min(pending.find(byte), pending.size());
    const std::size_t next = std::min(pending.find_first_not_of(byte, found), pending.size());
    begin_ += next;
    if (found < pending.size()) {
      skipped_bytes_ += next - 1;
      return true;
    }
    skipped_bytes_ += next;
    if (!Receive(ctx, socket)) return false;
  }
}

std::uint64_t NewMessageId() {
  constexpr std::size_t kHexDigits = 12;
  return std::stoull(base::RandomSuffix().substr(0, kHexDigits), nullptr, 16);
}

}  // namespace msb::vmm
