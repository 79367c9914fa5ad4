// SPDX-License-Identifier: Apache-2.0

#include "src/base/rename.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "src/base/call_scope.h"
#include "src/base/file.h"
#include "src/base/file_system.h"
#include "src/base/remove_tree.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

// The files that make a directory a snapshot or a sandbox, in the order in which to delete them: if
// a snapshot has both manifests, snapshot.json counts.
constexpr std::array<const char*, 3> kDescriptions = {"manifest.json", "snapshot.json",
                                                      "sandbox.json"};

bool Rename(int dir, const std::string& name, int target_dir, const std::string& target) {
  return renameat(dir, name.c_str(), target_dir, target.c_str()) == 0;
}

bool RenameWithFlags(int dir, const std::string& name, int target_dir, const std::string& target,
                     unsigned flags) {
  return renameat2(dir, name.c_str(), target_dir, target.c_str(), flags) == 0;
}

// Implements RenameNew without RENAME_NOREPLACE.
bool RenameNewInSteps(int dir, const std::string& name, int target_dir, const std::string& target) {
  LogOnce("RENAME_NOREPLACE",
          "the file system of " + PathOf(target_dir) +
              " cannot rename without replacing (renameat2, RENAME_NOREPLACE): a file or an empty "
              "directory that other software creates there under the name of a new snapshot or "
              "sandbox, at the same moment, is replaced");
  if (TypeAt(dir, name) == EntryType::kRegularFile) {
    if (linkat(dir, name.c_str(), target_dir, target.c_str(), 0) == 0) {
      if (unlinkat(dir, name.c_str(), 0) == 0) return true;
      const int error = errno;
      unlinkat(target_dir, target.c_str(), 0);
      errno = error;
      return false;
    }
    if (!NeedsCopy(errno)) return false;
  }
  struct stat st;
  if (fstatat(target_dir, target.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
    errno = EEXIST;
    return false;
  }
  if (Rename(dir, name, target_dir, target)) return true;
  // Another directory or file was created under the name meanwhile.
  if (errno == ENOTEMPTY || errno == ENOTDIR || errno == EISDIR) errno = EEXIST;
  return false;
}

// Creates and locks a directory with a hidden name. The destructor removes it if it is empty.
class HiddenDirectory {
 public:
  // Throws kIO.
  HiddenDirectory(int parent, std::string_view prefix)
      : parent_(parent), name_(NewHiddenName(parent, prefix)) {
    MakeDirectoryAt(parent, name_);
    UniqueFd fd = OpenEntryAt(parent, name_).fd;
    if (!fd || !TryLock(fd.get()) || !IsSameFile(fd.get(), parent, name_)) {
      Throw(ErrorKind::kIO, "{} was removed or locked by another program; try again",
            PathOf(parent, name_));
    }
    fd_ = LockedFd(std::move(fd));
  }
  HiddenDirectory(const HiddenDirectory&) = delete;
  HiddenDirectory& operator=(const HiddenDirectory&) = delete;
  ~HiddenDirectory() {
    const int error = errno;
    unlinkat(parent_, name_.c_str(), AT_REMOVEDIR);
    errno = error;
  }

  int fd() const { return fd_.get(); }
  const std::string& name() const { return name_; }
  void Rename(const std::string& name) {
    if (!base::Rename(parent_, name_, parent_, name)) ThrowErrnoAt("rename", parent_, name_);
    name_ = name;
  }

 private:
  const int parent_;
  std::string name_;
  LockedFd fd_;
};

// Implements ExchangeDirectories without RENAME_EXCHANGE.
bool ExchangeInSteps(int dir, const std::string& hidden, const std::string& name) {
  LogOnce("RENAME_EXCHANGE", "the file system of " + PathOf(dir) +
                                 " cannot exchange directories (renameat2, RENAME_EXCHANGE): while "
                                 "a snapshot or sandbox is replaced there, its name is absent for "
                                 "a moment");
  const HiddenDirectory aside(dir, kAsidePrefix);
  if (!Rename(dir, name, aside.fd(), name)) return false;
  if (!Rename(dir, hidden, dir, name)) {
    // Other software, or another call that found the name absent, has taken the name.
    const bool taken = errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR;
    const int error = taken ? ENOENT : errno;
    RenameNew(aside.fd(), name, dir, name);
    errno = error;
    return false;
  }
  if (Rename(aside.fd(), name, dir, hidden)) return true;
  const int error = errno;
  if (Rename(dir, name, dir, hidden)) Rename(aside.fd(), name, dir, name);
  errno = error;
  return false;
}

// Copies a directory tree into the empty directory to: creates its directories and hard links its
// files.
void LinkTree(int from, int to) {
  struct stat st;
  if (fstat(from, &st) != 0) ThrowErrno("stat", from);
  SetMode(to, (st.st_mode & 07777) | 0700);
  for (const DirectoryEntry& entry : ListDirectory(from)) {
    if (entry.type == EntryType::kDirectory) {
      MakeDirectoryAt(to, entry.name);
      LinkTree(OpenEntryAt(from, entry.name).fd.get(), OpenEntryAt(to, entry.name).fd.get());
    } else if (linkat(from, entry.name.c_str(), to, entry.name.c_str(), 0) != 0) {
      ThrowErrnoAt("link", from, entry.name);
    }
  }
  SetMode(to, st.st_mode & 07777);
  Sync(to);
}

}  // namespace

bool IsHiddenName(std::string_view name) {
  return std::ranges::any_of(std::array{kStagePrefix, kPullPrefix, kAsidePrefix, kCopiedPrefix},
                             [&](std::string_view prefix) { return name.starts_with(prefix); });
}

std::string NewHiddenName(int dir, std::string_view prefix) {
  return fmt::format("{}{}-{}", prefix, LockDomain(dir), RandomSuffix());
}

bool IsSameFile(int fd, int dir, const std::string& name) {
  struct stat ours;
  struct stat theirs;
  return fstat(fd, &ours) == 0 && fstatat(dir, name.c_str(), &theirs, AT_SYMLINK_NOFOLLOW) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

bool RenameNew(int dir, const std::string& name, int target_dir, const std::string& target) {
  if (RenameWithFlags(dir, name, target_dir, target, RENAME_NOREPLACE)) return true;
  return IsUnsupported(errno) && RenameNewInSteps(dir, name, target_dir, target);
}

bool ExchangeDirectories(int dir, const std::string& hidden, const std::string& name) {
  if (RenameWithFlags(dir, hidden, dir, name, RENAME_EXCHANGE)) return true;
  if (!IsUnsupported(errno)) return false;
  try {
    return ExchangeInSteps(dir, hidden, name);
  } catch (const Error& e) {
    errno = e.os_error() != 0 ? e.os_error() : EIO;
    return false;
  }
}

void MakeRenameable(int dir, const std::string& name, LockedFd& locked) {
  LogOnce("redirect_dir", "the file system of " + PathOf(dir) +
                              " (overlayfs without redirect_dir) cannot rename directories of a "
                              "lower layer: they are copied when they are replaced or removed");
  HiddenDirectory copied(dir, kStagePrefix);
  LockedFd copy;
  try {
    MakeDirectoryAt(copied.fd(), name);
    UniqueFd fd = OpenEntryAt(copied.fd(), name).fd;
    TryLock(fd.get());
    copy = LockedFd(std::move(fd));
    LinkTree(locked.get(), copy.get());
    Sync(copied.fd());
  } catch (...) {
    try {
      RemoveContents(Context::Background(), copied.fd());
    } catch (const Error&) {
      // SweepStages tries again.
    }
    throw;
  }
  copied.Rename(NewHiddenName(dir, kCopiedPrefix));
  Sync(dir);
  // Without its manifest or record, no call takes the rest for a snapshot or sandbox.
  for (const char* file : kDescriptions) unlinkat(locked.get(), file, 0);
  RemoveContents(Context::Background(), locked.get());
  // This replaces the directory, which is empty now, so the name is never absent.
  if (!Rename(copied.fd(), name, dir, name)) ThrowErrnoAt("rename", copied.fd(), name);
  Sync(dir);
  locked = std::move(copy);
}

}  // namespace msb::base
