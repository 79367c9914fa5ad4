// SPDX-License-Identifier: Apache-2.0
//
// Reads the members of an archive from its tar stream.

#ifndef MSB_SRC_ARCHIVE_RECEIVER_H_
#define MSB_SRC_ARCHIVE_RECEIVER_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "src/archive/layout_guess.h"
#include "src/archive/member.h"
#include "src/archive/tar_reader.h"

namespace msb::archive {

// Throws kSnapshotIntegrity with a message that the archive's entry at this path has this problem.
[[noreturn]] void RefuseEntry(std::string_view path, std::string_view problem);
// Does the same for an entry that exceeds a limit of this library.
[[noreturn]] void RefuseExcess(std::string_view path, std::string_view problem);

class MemberReceiver {
 public:
  // All references must outlive the receiver. destination is the directory that messages name. ctx
  // must not have a progress function, since the input reports the progress.
  MemberReceiver(const Context& ctx, TarReader& reader, const LayoutGuess& layout,
                 std::filesystem::path destination);

  // Returns the content of a member. Fills in *member, unless member is null.
  // Throws kSnapshotIntegrity as CheckInMemory does.
  std::string ReadText(const TarEntry& entry, MemberKind kind, std::size_t limit, Member* member);

  // Checks a member that is held in memory.
  // Throws kSnapshotIntegrity if it is longer than limit bytes, or has holes.
  static void CheckInMemory(const TarEntry& entry, std::size_t limit);

  // Writes the member to the new file target, creating its directory if it is absent, or only reads
  // it if there is no target. Computes the integrity with algorithm if that is set. free is the
  // space that is available to the target, in bytes, or nullopt if it is not known.
  // Throws kIO if the member stores more than free bytes; the holes of a sparse entry do not count.
  // The zeros of another entry do, although they become holes: a few compressed bytes may stand for
  // a tebibyte of them.
  // Throws kSnapshotIntegrity if the entries have too many sparse ranges.
  Member ReceiveFile(const TarEntry& entry, MemberKind kind,
                     const std::optional<std::filesystem::path>& target,
                     const std::optional<std::string>& algorithm,
                     std::optional<std::uint64_t> free);

 private:
  Member Describe(const TarEntry& entry, MemberKind kind) const;
  void CountRanges(const TarEntry& entry);
  void CheckSpace(const TarEntry& entry, std::uint64_t free) const;

  const Context& ctx_;
  TarReader& reader_;
  const LayoutGuess& layout_;
  const std::filesystem::path destination_;
  std::size_t ranges_ = 0;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_RECEIVER_H_
