// SPDX-License-Identifier: Apache-2.0
//
// Renames entries without replacing, and exchanges directories, with fallbacks for file systems
// that cannot do that in one step. No other source file has such fallbacks. docs/environments.md
// describes which guarantees they weaken.
//
// SweepStages and AwaitExchange (staging.h) resolve the hidden directories that a crash may leave:
//   .msb-aside-DOMAIN-HEX/NAME   NAME was moved out of the way of its replacement. It is moved
//                                back if there is no NAME, and deleted otherwise.
//   .msb-copied-DOMAIN-HEX/NAME  A complete copy of NAME, whose original cannot be renamed and was
//                                being deleted. The copy replaces the rest of the original.

#ifndef MSB_SRC_BASE_RENAME_H_
#define MSB_SRC_BASE_RENAME_H_

#include <string>
#include <string_view>

#include "src/base/lock.h"

namespace msb::base {

inline constexpr std::string_view kStagePrefix = ".msb-stage-";
inline constexpr std::string_view kPullPrefix = ".msb-pull-";
inline constexpr std::string_view kAsidePrefix = ".msb-aside-";
inline constexpr std::string_view kCopiedPrefix = ".msb-copied-";

// Returns true if name begins with one of these prefixes.
bool IsHiddenName(std::string_view name);

// Returns a new name for a hidden entry of the directory dir: prefix, the LockDomain of dir, "-"
// and 16 random hex digits.
std::string NewHiddenName(int dir, std::string_view prefix);

// Returns true if dir/name is the open file or directory fd. Does not follow a symbolic link.
bool IsSameFile(int fd, int dir, const std::string& name);

// Renames an entry unless target exists. Returns false with errno set if it fails: EEXIST if target
// exists, EXDEV if the entry cannot be renamed. Without RENAME_NOREPLACE (NFS, 9p, some FUSE), a
// file is hard linked to target, and then its old name is removed. A directory, or a file where
// hard links are not supported either, is renamed after target was found absent; in the worst case,
// this replaces an empty directory or a file that other software creates at that moment.
bool RenameNew(int dir, const std::string& name, int target_dir, const std::string& target);

// Exchanges two directories in dir that the caller has locked. Returns false with errno set if it
// fails: ENOENT if other software removed or replaced name, EXDEV if one of the two directories
// cannot be renamed. Without RENAME_EXCHANGE it moves name aside, renames hidden to name, and then
// moves the old directory to hidden, so name is absent for a moment. On failure nothing is changed,
// unless undoing these steps fails too.
bool ExchangeDirectories(int dir, const std::string& hidden, const std::string& name);

// Replaces the directory dir/name by a copy that can be renamed. This is needed on overlayfs, which
// cannot rename a directory of a lower layer. locked is the directory with its lock, and is
// replaced by the copy with its lock. The files are hard linked, which on overlayfs copies them to
// the upper layer. For a moment the directory has only some of its files. Throws kIO.
void MakeRenameable(int dir, const std::string& name, LockedFd& locked);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_RENAME_H_
