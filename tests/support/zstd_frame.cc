// SPDX-License-Identifier: Apache-2.0

#include "tests/support/zstd_frame.h"

#include <stdexcept>

#include "tests/support/support.h"

namespace msb::test {
namespace {

constexpr std::size_t kMaxBlockBytes = 128 << 10;

enum class BlockType : std::uint32_t { kRaw = 0, kRepeated = 1 };

std::string LittleEndian(std::uint32_t number, std::size_t width) {
  std::string bytes;
  for (std::size_t i = 0; i < width; ++i) bytes += static_cast<char>(number >> (8 * i));
  return bytes;
}

std::string BlockHeader(BlockType type, std::size_t size, bool last) {
  return LittleEndian((last ? 1U : 0U) | static_cast<std::uint32_t>(type) << 1 |
                          static_cast<std::uint32_t>(size) << 3,
                      3);
}

}  // namespace

std::string Compress(std::string_view bytes, const std::string& options) {
  const TempDir dir;
  WriteFile(dir / "in", bytes);
  const CommandResult result =
      RunCommand("zstd -q -1 " + options + " -o '" + (dir / "out").native() + "' '" +
                 (dir / "in").native() + "'");
  if (result.status != 0) throw std::runtime_error("zstd: " + result.output);
  return ReadFile(dir / "out");
}

std::string StoredFrame(const std::vector<FramePart>& parts, unsigned window_log) {
  std::string frame = "\x28\xb5\x2f\xfd";
  frame += '\0';  // No content size, no checksum, no dictionary.
  frame += static_cast<char>((window_log - 10) << 3);
  const std::string full = BlockHeader(BlockType::kRepeated, kMaxBlockBytes, false) + '\0';
  for (const FramePart& part : parts) {
    for (std::size_t done = 0; done < part.bytes.size(); done += kMaxBlockBytes) {
      const std::string block = part.bytes.substr(done, kMaxBlockBytes);
      frame += BlockHeader(BlockType::kRaw, block.size(), false) + block;
    }
    for (std::uint64_t i = 0; i < part.zeros / kMaxBlockBytes; ++i) frame += full;
    const auto rest = static_cast<std::size_t>(part.zeros % kMaxBlockBytes);
    if (rest > 0) frame += BlockHeader(BlockType::kRepeated, rest, false) + '\0';
  }
  return frame + BlockHeader(BlockType::kRaw, 0, true);
}

std::string SkippableFrame(std::string_view bytes) {
  return "\x50\x2a\x4d\x18" + LittleEndian(static_cast<std::uint32_t>(bytes.size()), 4) +
         std::string(bytes);
}

}  // namespace msb::test
