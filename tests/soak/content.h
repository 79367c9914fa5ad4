// SPDX-License-Identifier: Apache-2.0
//
// Disk images whose content describes itself, so that a copy can be checked wherever it turns up:
// in a sandbox, in a snapshot, or in an archive that was imported elsewhere.
//
// A disk has eight slots of one block, 256 KiB apart; everything else is zero. The block in a slot
// is generated from the slot's stamp, a number that is used once. Slot 0 holds the superblock,
// which lists the stamps of the other slots.

#ifndef MSB_TESTS_SOAK_CONTENT_H_
#define MSB_TESTS_SOAK_CONTENT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "msb/disk.h"

namespace msb::soak {

inline constexpr std::size_t kSlots = 8;
inline constexpr std::size_t kBlockBytes = 4096;
inline constexpr std::size_t kSlotStride = 256 << 10;

// The content of a disk. A stamp of 0 stands for a slot that was never written.
struct State {
  std::array<std::uint64_t, kSlots> stamps{};  // stamps[0] is unused.

  bool operator==(const State&) const = default;
  // Returns the stamps as hexadecimal digits, for use in labels.
  std::string ToString() const;
  static std::optional<State> Parse(std::string_view text);
};

// Returns the block that belongs in a slot.
std::string BlockOf(const State& state, std::size_t slot);

// Returns the state of a raw disk, or what is wrong with its content.
std::variant<State, std::string> ReadDisk(const std::filesystem::path& raw);
// Reads the disk like the above; converts a qcow2 disk to a raw file at scratch first, with
// qemu-img.
std::variant<State, std::string> ReadDisk(const std::filesystem::path& disk, DiskFormat format,
                                          const std::filesystem::path& scratch);

// Makes a raw image of size bytes with this state.
void MakeImage(const std::filesystem::path& path, std::uint64_t size, const State& state);

// Writes the slots in which after differs from before (all slots if before is empty), and the
// superblock, in place. A qcow2 disk is written with qemu-io. Returns false if that failed; the
// content is then unknown.
bool WriteDisk(const std::filesystem::path& disk, DiskFormat format,
               const std::optional<State>& before, const State& after,
               const std::filesystem::path& scratch);

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_CONTENT_H_
