// SPDX-License-Identifier: Apache-2.0
//
// Throws msb::Error with formatted messages.

#ifndef MSB_SRC_BASE_THROW_H_
#define MSB_SRC_BASE_THROW_H_

#include <fmt/core.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "msb/error.h"

namespace msb::base {

template <typename... Args>
[[noreturn]] void Throw(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// Throws kIO with the message "cannot ACTION PATH: REASON; NEXT STEP". The next step depends on the
// error and on the file at path, which should be absolute.
[[noreturn]] void ThrowErrno(std::string_view action, std::string_view path, int error = errno);
// Does the same for an open file or directory. The message contains its current path.
[[noreturn]] void ThrowErrno(std::string_view action, int fd, int error = errno);
// Does the same for a name in an open directory.
[[noreturn]] void ThrowErrnoAt(std::string_view action, int dir, std::string_view name,
                               int error = errno);
// Does the same for a call that removes or renames the entry, for which the process needs
// permissions for the directory that the entry is in.
[[noreturn]] void ThrowErrnoOfEntry(std::string_view action, int dir, std::string_view name,
                                    int error = errno);

// A name in an open directory.
struct FileAt {
  int dir;
  std::string_view name;
};
// Throws kIO for a file that cannot be linked or renamed, with the message "cannot ACTION SOURCE to
// TARGET: REASON; NEXT STEP".
[[noreturn]] void ThrowErrnoBetween(std::string_view action, const FileAt& source,
                                    const FileAt& target, int error = errno);

// Throws an error because the program at path cannot be executed: kInvalidConfig if path does not
// lead to a program that this process may execute, and kIO otherwise.
[[noreturn]] void ThrowCannotExecute(std::string_view path, int error);

// Returns true if the error means that a file system is full or a quota is used up.
bool IsNoSpace(int error);
// A SpaceNeed represents what is known about the space that an operation needs, in bytes.
struct SpaceNeed {
  enum class Bound { kAtLeast, kAtMost };
  Bound bound = Bound::kAtLeast;
  std::uint64_t bytes = 0;
};
// Throws kIO for a full file system, with the message "cannot ACTION PATH: REASON; N bytes are free
// there and at least (or at most) M are needed: …". fd is an open file on the file system.
[[noreturn]] void ThrowNoSpace(std::string_view action, int fd, SpaceNeed need, int error);

// Returns the path of an open file or directory for messages, or "an open file" if the path cannot
// be determined.
std::string PathOf(int fd);
// Returns the path of a name in an open directory, for messages.
std::string PathOf(int dir, std::string_view name);

// Returns a description of what the user can do about an error of the operating system on path,
// such as "create it, or correct the path". need is the space that the caller needs, if known.
std::string NextStep(int error, const std::string& path,
                     std::optional<SpaceNeed> need = std::nullopt);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_THROW_H_
