// SPDX-License-Identifier: Apache-2.0

#include "src/base/throw.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <system_error>

#include "src/base/absent_path.h"

namespace msb::base {
namespace {

// Names the settings of the home directory, which contains most of the files.
constexpr std::string_view kForHome = "(MSB_HOME or Config::home for the home)";

// Returns the path about which a message about path can say more: see NearestExisting. Returns an
// empty string if path is not absolute, because it may not be a path.
std::string KnownPlace(const std::string& path) {
  return path.starts_with('/') ? NearestExisting(path).native() : std::string();
}

std::string StepForPermission(int error, const std::string& path) {
  const std::string existing = KnownPlace(path);
  struct stat st;
  std::string owner;
  if (!existing.empty() && lstat(existing.c_str(), &st) == 0) {
    owner = fmt::format(" and {} belongs to user {} with mode {:04o}", existing, st.st_uid,
                        st.st_mode & 07777);
  }
  // Even root may not change a file with these attributes.
  const char* attributes =
      error == EPERM ? "remove its attributes i and a if lsattr shows them (chattr -i -a), " : "";
  return fmt::format(
      "this process runs as user {}{}: {}change the owner or the mode, or choose a place that user "
      "{} may access {}",
      geteuid(), owner, attributes, geteuid(), kForHome);
}

std::string StepForSpace(int error, const std::string& path, const std::optional<SpaceNeed>& need) {
  const std::string existing = KnownPlace(path);
  struct stat st;
  if (!existing.empty() && stat(existing.c_str(), &st) == 0 && !S_ISREG(st.st_mode) &&
      !S_ISDIR(st.st_mode)) {
    return "it takes no more data: choose another device or a file";
  }
  struct statvfs file_system;
  const bool known = !existing.empty() && statvfs(existing.c_str(), &file_system) == 0;
  std::string space;
  if (error == EDQUOT) {
    space = fmt::format("the quota of user {} is used up", geteuid());
  } else if (known && file_system.f_files != 0 && file_system.f_favail == 0) {
    space = "the file system has no free inodes";
  } else if (known) {
    space = fmt::format("{} bytes are free there",
                        std::uint64_t{file_system.f_bavail} * file_system.f_frsize);
  } else {
    space = "the file system is full";
  }
  if (need) {
    const bool at_least = need->bound == SpaceNeed::Bound::kAtLeast;
    space += fmt::format(" and at {} {} are needed", at_least ? "least" : "most", need->bytes);
  }
  return fmt::format(
      "{}: free space, for example by removing snapshots or sandboxes, or choose a place on a "
      "larger file system {}",
      space, kForHome);
}

std::string StepForAbsent(const std::string& path) {
  const std::string existing = KnownPlace(path);
  if (existing.empty()) return "create it, or correct the path";
  if (const std::filesystem::path link = DanglingLinkIn(path); !link.empty()) {
    std::error_code error;
    return fmt::format(
        "{} is a symbolic link to {}, which is absent: mount or create that, or correct the link",
        link.native(), std::filesystem::read_symlink(link, error).native());
  }
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (existing == path || existing == parent) {
    return fmt::format("it is absent from {}: create it, or correct the path", parent.native());
  }
  return fmt::format("the directory {} is absent: create it, or correct the path", parent.native());
}

// Returns the first component of path that is not a directory, as a path; empty if all are.
std::string FirstNonDirectory(const std::string& path) {
  std::filesystem::path prefix;
  for (const std::filesystem::path& component : std::filesystem::path(path)) {
    prefix /= component;
    struct stat st;
    if (stat(prefix.c_str(), &st) != 0) return {};
    if (!S_ISDIR(st.st_mode)) return prefix;
  }
  return {};
}

std::string StepForNonDirectory(const std::string& path) {
  const std::string found = FirstNonDirectory(path);
  if (found.empty()) return "a component of the path is not a directory: correct the path";
  return fmt::format("{} is not a directory: correct the path, or move that file away", found);
}

// Returns the mount point above path whose file system has lost the program that served it; path
// itself if that cannot be determined.
std::string DeadMount(const std::string& path) {
  const auto is_dead = [](const std::filesystem::path& at) {
    struct stat st;
    return lstat(at.c_str(), &st) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
  };
  std::filesystem::path at = path;
  while (at.has_relative_path() && is_dead(at.parent_path())) at = at.parent_path();
  return at;
}

}  // namespace

bool IsNoSpace(int error) { return error == ENOSPC || error == EDQUOT; }

std::string PathOf(int fd) {
  std::array<char, 4096> target;
  const std::string link = fmt::format("/proc/self/fd/{}", fd);
  const ssize_t length = readlink(link.c_str(), target.data(), target.size());
  if (length <= 0 || target[0] != '/') return "an open file";
  return {target.data(), static_cast<std::size_t>(length)};
}

std::string PathOf(int dir, std::string_view name) {
  if (name.starts_with('/')) return std::string(name);
  std::string path = dir == AT_FDCWD ? "." : PathOf(dir);
  if (path == "/") path.clear();
  return fmt::format("{}/{}", path, name);
}

std::string NextStep(int error, const std::string& path, const std::optional<SpaceNeed> need) {
  switch (error) {
    case EACCES:
    case EPERM:
      return StepForPermission(error, path);
    case ENOSPC:
    case EDQUOT:
      return StepForSpace(error, path, need);
    case ENOENT:
      return StepForAbsent(path);
    case ENOTDIR:
      return StepForNonDirectory(path);
    case EISDIR:
      return "give the path of a file";
    case EROFS:
      return fmt::format("mount it writable, or choose a place on a writable file system {}",
                         kForHome);
    case ENAMETOOLONG:
      return fmt::format("choose a shorter name, or a place with a shorter path {}", kForHome);
    case ELOOP:
      return "the path has too many symbolic links, or a symbolic link where none is allowed: give "
             "the path without symbolic links";
    case EMFILE:
      return "this process has reached its limit of open files: raise the limit (ulimit -n), or "
             "close files";
    case ENFILE:
      return "the system has reached its limit of open files: raise the limit (sysctl fs.file-max)";
    case ENOMEM:
    case EAGAIN:
      return "the system, this process or its control group has reached its limit of memory or "
             "processes: raise the limit, or stop other programs, and try again";
    case EFBIG:
      return "the file is larger than its file system or the limit of this process (ulimit -f) "
             "permits: raise the limit, or use another file system";
    case EIO:
    case EUCLEAN:
    case EBADMSG:
      return "the storage device failed, or the file system is damaged: look at the kernel's log "
             "(dmesg), and check the file system";
    case ESTALE:
      return "the file server no longer has it: try again; if it fails again, unmount its file "
             "system and mount it again";
    case ENOTCONN:
    case ECONNABORTED:
      return fmt::format(
          "the program that served its file system, such as a FUSE server, has ended: unmount it "
          "(umount -l {}) and mount it again",
          DeadMount(path));
    case ETIMEDOUT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
      return "the server that it is on did not answer: check that server and the network, and try "
             "again";
    case EBUSY:
      return fmt::format(
          "another program is using it, or it is a mount point: stop that program, or unmount it "
          "(umount {}), and try again",
          path);
    case ETXTBSY:
      return "another program is using it: stop that program and try again";
    case EEXIST:
    case ENOTEMPTY:
      return "another program created it meanwhile: move it away, or try again";
    case EPIPE:
      return "its reader closed it before everything was written: see why the reader ended, and "
             "try again";
    case EBADF:
      return "the descriptor is not open, or not in the mode that the call needs: open it for "
             "reading or writing before the call";
    case ENOEXEC:
      return "it is not a program for this machine: give the path of a program that is";
    case EXDEV:
      return "both paths must be on the same file system";
    case EINVAL:
    case ENOSYS:
    case EOPNOTSUPP:
    case ENOLCK:
    case ENOTTY:
      return fmt::format(
          "its file system or the kernel does not support this: choose a place on another file "
          "system {}",
          kForHome);
    default:
      return "try again; if it fails again, look at the kernel's log (dmesg)";
  }
}

namespace {

[[noreturn]] void ThrowWithStep(std::string_view action, const std::string& path, int error,
                                std::string_view step) {
  throw Error(ErrorKind::kIO,
              fmt::format("cannot {} {}: {}; {}", action, path.empty() ? "an empty path" : path,
                          std::error_code(error, std::generic_category()).message(), step),
              error);
}

}  // namespace

void ThrowErrno(std::string_view action, std::string_view path, int error) {
  const std::string name(path);
  ThrowWithStep(action, name, error, NextStep(error, name));
}

void ThrowErrno(std::string_view action, int fd, int error) {
  const std::string path = PathOf(fd);
  ThrowWithStep(action, path, error, NextStep(error, path));
}

void ThrowErrnoAt(std::string_view action, int dir, std::string_view name, int error) {
  const std::string path = PathOf(dir, name);
  ThrowWithStep(action, path, error, NextStep(error, path));
}

void ThrowErrnoOfEntry(std::string_view action, int dir, std::string_view name, int error) {
  const std::string path = PathOf(dir, name);
  const bool is_permission = error == EACCES || error == EPERM;
  ThrowWithStep(
      action, path, error,
      NextStep(error, is_permission ? std::filesystem::path(path).parent_path().native() : path));
}

void ThrowErrnoBetween(std::string_view action, const FileAt& source, const FileAt& target,
                       int error) {
  const std::string from = PathOf(source.dir, source.name);
  const std::string to = PathOf(target.dir, target.name);
  const bool is_absent =
      error == ENOENT && faccessat(AT_FDCWD, from.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0;
  const std::string step = is_absent
                               ? from + " is absent: stop the program that removed it and try again"
                               : NextStep(error, to);
  ThrowWithStep(action, fmt::format("{} to {}", from, to), error, step);
}

void ThrowCannotExecute(std::string_view path, int error) {
  const bool wrong = error == ENOENT || error == ENOTDIR || error == EACCES || error == EISDIR ||
                     error == ENOEXEC || error == ELOOP || error == ENAMETOOLONG;
  if (!wrong) ThrowErrno("execute", path, error);
  throw Error(
      ErrorKind::kInvalidConfig,
      fmt::format("cannot execute {}: {}; give the path of a program for this machine that "
                  "user {} may execute",
                  path, std::error_code(error, std::generic_category()).message(), geteuid()),
      error);
}

void ThrowNoSpace(std::string_view action, int fd, SpaceNeed need, int error) {
  const std::string path = PathOf(fd);
  ThrowWithStep(action, path, error, NextStep(error, path, need));
}

}  // namespace msb::base
