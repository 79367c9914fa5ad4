// SPDX-License-Identifier: Apache-2.0

#include "tests/soak/content.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "tests/soak/command.h"
#include "tests/support/support.h"

namespace msb::soak {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "msb-soak ";
constexpr std::size_t kStampDigits = 16;

std::uint64_t Mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

void Fill(std::string& block, std::size_t from, std::uint64_t seed) {
  for (std::size_t i = from; i + sizeof(seed) <= block.size(); i += sizeof(seed)) {
    seed = Mix(seed);
    std::memcpy(&block[i], &seed, sizeof(seed));
  }
}

// Writes the blocks with qemu-io, which opens the backing files by their names.
bool WriteQcow2(const fs::path& disk, const std::vector<std::size_t>& slots, const State& after,
                const fs::path& scratch) {
  std::string command = fmt::format("qemu-io -f qcow2");
  std::vector<fs::path> files;
  for (const std::size_t slot : slots) {
    files.push_back(scratch.native() + fmt::format(".{}", slot));
    test::WriteFile(files.back(), BlockOf(after, slot));
    command += fmt::format(" -c 'write -s {} {} {}'", files.back().native(), slot * kSlotStride,
                           kBlockBytes);
  }
  const auto result = RunTied(command + " " + disk.native());
  for (const fs::path& file : files) fs::remove(file);
  // Some releases of qemu-io exit with 0 after a failed write and only print the error.
  return result.status == 0 && result.output.find("failed") == std::string::npos &&
         result.output.find("error") == std::string::npos;
}

bool WriteRaw(const fs::path& disk, const std::vector<std::size_t>& slots, const State& after) {
  const int fd = open(disk.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  bool good = true;
  for (const std::size_t slot : slots) {
    const std::string block = BlockOf(after, slot);
    good = good && pwrite(fd, block.data(), block.size(), static_cast<off_t>(slot * kSlotStride)) ==
                       std::ssize(block);
  }
  return close(fd) == 0 && good;
}

}  // namespace

std::string State::ToString() const {
  std::string text;
  for (const std::uint64_t stamp : stamps) text += fmt::format("{:016x}", stamp);
  return text;
}

std::optional<State> State::Parse(std::string_view text) {
  if (text.size() != kSlots * kStampDigits) return std::nullopt;
  State state;
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    const char* begin = text.data() + slot * kStampDigits;
    const char* end = begin + kStampDigits;
    const auto parsed = std::from_chars(begin, end, state.stamps[slot], 16);
    if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  }
  return state;
}

std::string BlockOf(const State& state, std::size_t slot) {
  std::string block(kBlockBytes, '\0');
  if (slot == 0) {
    const std::string text = std::string(kMagic) + state.ToString();
    block.replace(0, text.size(), text);
    Fill(block, kBlockBytes / 2, state.stamps[1] ^ Mix(state.stamps[2]));
  } else if (state.stamps[slot] != 0) {
    Fill(block, 0, state.stamps[slot] * kSlots + slot);
  }
  return block;
}

std::variant<State, std::string> ReadDisk(const fs::path& raw) {
  std::string content;
  try {
    content = test::ReadFile(raw);
  } catch (const std::exception& e) {
    return e.what();
  }
  if (content.size() < kSlots * kSlotStride) {
    return fmt::format("a disk of {} bytes", content.size());
  }
  const std::string_view all = content;
  const auto state = all.starts_with(kMagic)
                         ? State::Parse(all.substr(kMagic.size(), kSlots * kStampDigits))
                         : std::nullopt;
  if (!state) return "no superblock";
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    if (all.substr(slot * kSlotStride, kBlockBytes) == BlockOf(*state, slot)) continue;
    return fmt::format("slot {} is not what the superblock {} lists", slot, state->ToString());
  }
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    const std::size_t from = slot * kSlotStride + kBlockBytes;
    const std::size_t to = slot + 1 == kSlots ? all.size() : (slot + 1) * kSlotStride;
    const std::size_t other = all.substr(from, to - from).find_first_not_of('\0');
    if (other != std::string_view::npos) return fmt::format("byte {} is not zero", from + other);
  }
  return *state;
}

std::variant<State, std::string> ReadDisk(const fs::path& disk, DiskFormat format,
                                          const fs::path& scratch) {
  if (format == DiskFormat::kRaw) return ReadDisk(disk);
  const auto result = RunTied(
      fmt::format("qemu-img convert -U -f qcow2 -O raw {} {}", disk.native(), scratch.native()));
  if (result.status != 0) return "qemu-img: " + result.output;
  auto state = ReadDisk(scratch);
  fs::remove(scratch);
  return state;
}

void MakeImage(const fs::path& path, std::uint64_t size, const State& state) {
  std::vector<std::pair<std::uint64_t, std::string>> data;
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    if (slot == 0 || state.stamps[slot] != 0) {
      data.emplace_back(slot * kSlotStride, BlockOf(state, slot));
    }
  }
  test::MakeSparseFile(path, size, data);
}

bool WriteDisk(const fs::path& disk, DiskFormat format, const std::optional<State>& before,
               const State& after, const fs::path& scratch) {
  std::vector<std::size_t> slots;
  for (std::size_t slot = 1; slot < kSlots; ++slot) {
    if (!before || before->stamps[slot] != after.stamps[slot]) slots.push_back(slot);
  }
  slots.push_back(0);
  return format == DiskFormat::kRaw ? WriteRaw(disk, slots, after)
                                    : WriteQcow2(disk, slots, after, scratch);
}

}  // namespace msb::soak
