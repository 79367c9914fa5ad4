// SPDX-License-Identifier: Apache-2.0

#include "src/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <system_error>

#include "src/base/absent_path.h"
#include "src/base/call_scope.h"
#include "src/base/file_system.h"
#include "src/base/owner.h"
#include "src/base/rename.h"
#include "src/base/retry.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr std::size_t kEntriesBetweenChecks = 1024;

FileStamp ToStamp(const struct stat& st) {
  const auto nanoseconds = [](const timespec& time) {
    return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  };
  return {.device = st.st_dev,
          .inode = st.st_ino,
          .size = static_cast<std::uint64_t>(st.st_size),
          .mtime_ns = nanoseconds(st.st_mtim),
          .ctime_ns = nanoseconds(st.st_ctim),
          .blocks = static_cast<std::uint64_t>(st.st_blocks),
          .mode = static_cast<std::uint32_t>(st.st_mode & 07777),
          .owner = static_cast<std::uint32_t>(st.st_uid),
          .links = static_cast<std::uint64_t>(st.st_nlink)};
}

// Gives the directory dir/name, which was just created, to the owner of dir, if this process runs
// as root: see GiveToOwnerOf. Ignores failures, too.
void GiveNewDirectory(int dir, const std::string& name) noexcept {
  if (geteuid() != 0) return;
  try {
    // The owner of dir may have put a link or another directory in its place.
    const Entry entry = OpenEntryAt(dir, name);
    if (entry.type == EntryType::kDirectory && ListDirectory(entry.fd.get()).empty()) {
      GiveToOwnerOf(entry.fd.get(), dir);
    }
  } catch (const std::exception&) {
  }
}

EntryType TypeOf(mode_t mode) {
  if (S_ISREG(mode)) return EntryType::kRegularFile;
  if (S_ISDIR(mode)) return EntryType::kDirectory;
  if (S_ISLNK(mode)) return EntryType::kSymlink;
  return EntryType::kOther;
}

EntryType TypeOf(int dir, const dirent& entry) {
  switch (entry.d_type) {
    case DT_REG:
      return EntryType::kRegularFile;
    case DT_DIR:
      return EntryType::kDirectory;
    case DT_LNK:
      return EntryType::kSymlink;
    case DT_UNKNOWN:
      return TypeAt(dir, entry.d_name);
    default:
      return EntryType::kOther;
  }
}

}  // namespace

FileStamp StampOf(int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0) ThrowErrno("stat", fd);
  return ToStamp(st);
}

FileStamp FreshStampOf(int fd) {
  struct statx refreshed;
  // Failing has no effect: some sandboxes of programs refuse statx(2).
  static_cast<void>(
      statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &refreshed));
  return StampOf(fd);
}

void CheckUnchanged(const FileStamp& before, const FileStamp& now, ErrorKind kind,
                    std::string_view name, std::string_view action) {
  if (before.SameContent(now)) return;
  Throw(kind, "{} changed while it was {}; stop the program that writes to it and try again", name,
        action);
}

std::optional<FileStamp> StampOf(const std::filesystem::path& path) {
  struct stat st;
  if (lstat(path.c_str(), &st) != 0) {
    if (!MeansAbsent(errno)) ThrowErrno("look up", path.native());
    return std::nullopt;
  }
  if (!S_ISREG(st.st_mode)) return std::nullopt;
  return ToStamp(st);
}

std::string_view Describe(EntryType type) {
  switch (type) {
    case EntryType::kAbsent:
      return "absent";
    case EntryType::kRegularFile:
      return "a regular file";
    case EntryType::kDirectory:
      return "a directory";
    case EntryType::kSymlink:
      return "a symbolic link";
    case EntryType::kOther:
      break;
  }
  return "a special file";
}

EntryType TypeAt(int dir, const std::string& name) {
  struct stat st;
  if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return TypeOf(st.st_mode);
  if (!MeansAbsent(errno)) ThrowErrnoAt("look up", dir, name);
  return EntryType::kAbsent;
}

Entry OpenEntryAt(int dir, const std::string& name) {
  // Check the type before opening, since opening a device may have side effects, and again
  // afterwards, since the name may have become something else.
  const EntryType type = TypeAt(dir, name);
  if (type != EntryType::kRegularFile && type != EntryType::kDirectory) return {type, UniqueFd()};
  UniqueFd fd = OpenAt(dir, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) {
    if (MeansAbsent(errno)) return {};
    if (errno == ELOOP) return {EntryType::kSymlink, UniqueFd()};
    ThrowErrnoAt("open", dir, name);
  }
  struct stat st;
  if (fstat(fd.get(), &st) != 0) ThrowErrnoAt("stat", dir, name);
  if (TypeOf(st.st_mode) != type) return {TypeOf(st.st_mode), UniqueFd()};
  return {type, std::move(fd)};
}

UniqueFd OpenForUpdateAt(int dir, const std::string& name) {
  UniqueFd fd = OpenAt(dir, name.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) ThrowErrnoAt("open", dir, name);
  struct stat st;
  if (fstat(fd.get(), &st) != 0) ThrowErrnoAt("stat", dir, name);
  if (!S_ISREG(st.st_mode)) {
    Throw(ErrorKind::kIO, "{} must be a regular file, but is {}; remove it", PathOf(dir, name),
          Describe(TypeOf(st.st_mode)));
  }
  return fd;
}

bool MayReadAndWrite(const std::filesystem::path& path) {
  if (faccessat(AT_FDCWD, path.c_str(), R_OK | W_OK, AT_EACCESS) == 0) return true;
  // Old seccomp profiles refuse faccessat2(2), by which C libraries implement this.
  const bool is_same_user = geteuid() == getuid() && getegid() == getgid();
  return errno == EPERM && is_same_user && access(path.c_str(), R_OK | W_OK) == 0;
}

bool LeadsTo(const std::filesystem::path& path, int fd) {
  struct stat opened;
  struct stat now;
  return fstat(fd, &opened) == 0 && stat(path.c_str(), &now) == 0 && opened.st_dev == now.st_dev &&
         opened.st_ino == now.st_ino;
}

UniqueFd TryOpenDirectory(const std::filesystem::path& path) {
  UniqueFd fd = OpenAt(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY);
  if (fd || errno == ENOTDIR || errno == ENAMETOOLONG) return fd;
  if (errno != ENOENT) ThrowErrno("open directory", path.native());
  const std::filesystem::path link = DanglingLinkIn(path);
  if (!link.empty() && link != path) ThrowErrno("open directory", path.native(), ENOENT);
  return fd;
}

UniqueFd OpenDirectoryUnlessAbsent(const std::filesystem::path& path) {
  UniqueFd fd = OpenAt(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY);
  if (fd) return fd;
  const int error = errno;
  if (error != ENOENT || !DanglingLinkIn(path).empty()) {
    ThrowErrno("open directory", path.native(), error);
  }
  return fd;
}

void CheckDirectoryUnlessAbsent(const std::filesystem::path& path) {
  struct stat st;
  int error = 0;
  if (stat(path.c_str(), &st) != 0) {
    error = errno;
  } else if (!S_ISDIR(st.st_mode)) {
    error = ENOTDIR;
  }
  if (error == 0 || (error == ENOENT && DanglingLinkIn(path).empty())) return;
  ThrowErrno("look up", path.native(), error);
}

UniqueFd OpenDirectory(const std::filesystem::path& path) {
  UniqueFd fd = OpenAt(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY);
  if (!fd) ThrowErrno("open directory", path.native());
  return fd;
}

UniqueFd MakeDirectory(const std::filesystem::path& path,
                       const std::function<void(const std::filesystem::path& path)>& made) {
  constexpr int kMaxAttempts = 16;
  if (UniqueFd there = TryOpenDirectory(path)) return there;
  for (int attempt = 1;; ++attempt) {
    const UniqueFd parent =
        path.has_relative_path() ? MakeDirectory(path.parent_path(), made) : OpenDirectory(path);
    if (mkdirat(parent.get(), path.filename().c_str(), 0777) == 0) {
      if (made) made(path);
      GiveNewDirectory(parent.get(), path.filename());
    } else if (errno != EEXIST && errno != ENOENT) {
      ThrowErrno("create directory", path.native());
    }
    // The process that created this directory or its parent may have removed it again.
    UniqueFd fd = attempt < kMaxAttempts ? TryOpenDirectory(path) : OpenDirectory(path);
    if (!fd) continue;
    Sync(parent.get());
    return fd;
  }
}

void MakeDirectoryAt(int dir, const std::string& name) {
  if (mkdirat(dir, name.c_str(), 0777) != 0) ThrowErrnoAt("create directory", dir, name);
}

bool TryLinkFile(const std::filesystem::path& existing, int dir, const std::string& name) {
  if (linkat(AT_FDCWD, existing.c_str(), dir, name.c_str(), 0) == 0) return true;
  // Causes include another file system, one without hard links, too many links, and a file of
  // another user.
  if (NeedsCopy(errno)) return false;
  ThrowErrnoBetween("link", {AT_FDCWD, existing.native()}, {dir, name});
}

MoveResult MoveFileAt(int dir, const std::string& name, int target_dir, const std::string& target) {
  if (RenameNew(dir, name, target_dir, target)) return MoveResult::kMoved;
  if (errno == EEXIST) return MoveResult::kTargetExists;
  if (errno != EXDEV) ThrowErrnoBetween("rename", {dir, name}, {target_dir, target});
  return MoveResult::kOtherFileSystem;
}

UniqueFd CreateFileAt(int dir, const std::string& name, mode_t mode) {
  UniqueFd fd = OpenAt(dir, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
  if (!fd) ThrowErrnoAt("create", dir, name);
  return fd;
}

std::vector<DirectoryEntry> ListDirectory(int dir, const Context& ctx) {
  // Open the directory again: duplicates of a descriptor share the position that reading moves.
  UniqueFd own = OpenAt(dir, ".", O_RDONLY | O_DIRECTORY);
  if (!own) ThrowErrno("open directory", dir);
  const auto close_stream = [](DIR* stream) { closedir(stream); };
  std::unique_ptr<DIR, decltype(close_stream)> stream(fdopendir(own.get()), close_stream);
  if (!stream) ThrowErrno("read directory", dir);
  own.Release();  // The stream owns it now.
  std::vector<DirectoryEntry> entries;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) break;
    if (entries.size() % kEntriesBetweenChecks == 0) ctx.Check();
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    entries.push_back({std::string(name), TypeOf(dir, *entry)});
  }
  if (errno != 0) ThrowErrno("read directory", dir);
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return entries;
}

std::optional<std::string> ReadAll(int fd, std::size_t limit) {
  const std::uint64_t size = StampOf(fd).size;
  if (size > limit) return std::nullopt;
  // Ask for one byte more than the size, to see the end of the file in the same call.
  std::string content(std::min<std::size_t>(size + 1, limit + 1), '\0');
  std::size_t length = 0;
  for (;;) {
    const ssize_t n = Retry([&] {
      return pread(fd, content.data() + length, content.size() - length,
                   static_cast<off_t>(length));
    });
    if (n < 0) ThrowErrno("read", fd);
    if (n == 0) break;
    length += static_cast<std::size_t>(n);
    if (length > limit) return std::nullopt;
    if (length == content.size()) content.resize(std::min(content.size() * 2, limit + 1));
  }
  content.resize(length);
  return content;
}

void ReadExactly(int fd, void* buffer, std::size_t size, std::uint64_t offset) {
  auto* bytes = static_cast<char*>(buffer);
  while (size > 0) {
    const ssize_t n = Retry([&] { return pread(fd, bytes, size, static_cast<off_t>(offset)); });
    if (n < 0) ThrowErrno("read", fd);
    if (n == 0) {
      Throw(ErrorKind::kIO,
            "{} ends at byte {}, {} before its expected end: another program truncated it; "
            "stop that program and try again",
            PathOf(fd), offset, Count(size, "byte"));
    }
    bytes += n;
    size -= static_cast<std::size_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
}

void WriteExactly(int fd, const void* buffer, std::size_t size, std::uint64_t offset) {
  const auto* bytes = static_cast<const char*>(buffer);
  while (size > 0) {
    const ssize_t n = Retry([&] { return pwrite(fd, bytes, size, static_cast<off_t>(offset)); });
    if (n < 0) {
      if (IsNoSpace(errno)) ThrowNoSpace("write", fd, {.bytes = size}, errno);
      ThrowErrno("write", fd);
    }
    bytes += n;
    size -= static_cast<std::size_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
}

void Resize(int fd, std::uint64_t size) {
  if (Retry([&] { return ftruncate(fd, static_cast<off_t>(size)); }) != 0) {
    ThrowErrno("resize", fd);
  }
}

void SetMode(int fd, mode_t mode) {
  struct stat st;
  if (fstat(fd, &st) == 0 && (st.st_mode & 07777) == mode) return;
  if (fchmod(fd, mode) != 0) ThrowErrno("set the mode of", fd);
}

void TrySetMode(int fd, mode_t mode) {
  if (fchmod(fd, mode) == 0) return;
  const int error = errno;
  // Elsewhere, EPERM means that the file belongs to another user, who could still write to it.
  const bool may_be_fixed = !IsLocalFileSystem(fd) && (error == EPERM || IsUnsupported(error));
  const UniqueFd parent =
      may_be_fixed ? TryOpenDirectory(std::filesystem::path(PathOf(fd)).parent_path()) : UniqueFd();
  if (!parent || !IsOwn(fd, parent.get())) ThrowErrno("set the mode of", fd, error);
  LogOnce("fchmod", "the file system of " + PathOf(fd) +
                        " does not permit to change modes (fchmod), so disks of snapshots are not "
                        "protected from being written to by mistake");
}

void Sync(int fd) {
  if (Retry([fd] { return fsync(fd); }) == 0) return;
  const int error = errno;
  struct stat st;
  const bool cannot_flush =
      IsUnsupported(error) || error == EBADF || error == EISDIR || error == EACCES;
  const bool is_directory = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
  if (!cannot_flush || !is_directory) ThrowErrno("flush", fd, error);
  LogOnce("fsync", "the file system of " + PathOf(fd) +
                       " cannot flush directories (fsync): a crash of the machine may undo the "
                       "last operations there");
}

void SyncDirectories(int dir) {
  for (const DirectoryEntry& entry : ListDirectory(dir)) {
    if (entry.type != EntryType::kDirectory) continue;
    const Entry child = OpenEntryAt(dir, entry.name);
    if (child.type == EntryType::kDirectory) SyncDirectories(child.fd.get());
  }
  Sync(dir);
}

void BeginWriteback(int fd, std::uint64_t offset, std::uint64_t length) {
  sync_file_range(fd, static_cast<off_t>(offset), static_cast<off_t>(length),
                  SYNC_FILE_RANGE_WRITE);
}

std::optional<std::uint64_t> FreeSpace(int fd) {
  struct statvfs file_system;
  if (fstatvfs(fd, &file_system) != 0) {
    if (IsUnsupported(errno) || errno == EPERM) return std::nullopt;
    ThrowErrno("find the free space of", fd);
  }
  if (file_system.f_blocks == 0) return std::nullopt;
  return std::uint64_t{file_system.f_bavail} * file_system.f_frsize;
}

void WriteNewFileAt(int dir, const std::string& name, std::string_view content, mode_t mode) {
  const UniqueFd fd = CreateFileAt(dir, name, mode);
  WriteExactly(fd.get(), content.data(), content.size(), 0);
  Sync(fd.get());
}

void ReplaceFileAt(int dir, const std::string& name, std::string_view content, mode_t mode,
                   std::optional<int> temporary_dir) {
  const int from = temporary_dir.value_or(dir);
  const std::string temporary = "." + name + "." + RandomSuffix();
  try {
    WriteNewFileAt(from, temporary, content, mode);
    if (renameat(from, temporary.c_str(), dir, name.c_str()) != 0)
      ThrowErrnoOfEntry("rename", dir, name);
  } catch (...) {
    unlinkat(from, temporary.c_str(), 0);
    throw;
  }
  Sync(dir);
}

void RenameOverAt(int dir, const std::string& name, const std::string& target) {
  if (renameat(dir, name.c_str(), dir, target.c_str()) != 0) {
    ThrowErrnoOfEntry("rename", dir, name);
  }
  Sync(dir);
}

bool RemoveFile(const std::filesystem::path& path) {
  if (unlink(path.c_str()) == 0) return true;
  if (errno != ENOENT) ThrowErrnoOfEntry("remove", AT_FDCWD, path.native());
  return false;
}

bool IsBeneath(const std::filesystem::path& path, const std::filesystem::path& dir) {
  const std::string prefix = (dir / "").native();
  return path.native().size() > prefix.size() && path.native().starts_with(prefix);
}

std::filesystem::path AbsolutePath(const std::string& path) {
  if (path.empty()) {
    Throw(ErrorKind::kInvalidArgument,
          "cannot resolve an empty path; give the path of a file or directory");
  }
  // System calls would take such a path for a shorter one.
  if (path.find('\0') != std::string::npos) {
    Throw(ErrorKind::kInvalidArgument,
          "path '{}' is invalid: it must not contain a NUL byte; give another path", Quoted(path));
  }
  std::filesystem::path expanded = path;
  if (path == "~" || path.starts_with("~/")) {
    const char* home = std::getenv("HOME");
    if (home == nullptr || *home == '\0') {
      Throw(ErrorKind::kInvalidConfig,
            "cannot expand {}: HOME is not set; set it, or use an absolute path", path);
    }
    expanded = std::string(home) + path.substr(1);
  }
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(expanded, error).lexically_normal();
  if (error.value() == ENOENT) {
    throw Error(ErrorKind::kIO,
                fmt::format("cannot resolve {}: the current directory was removed; change to "
                            "another directory (cd), or give an absolute path",
                            path),
                ENOENT);
  }
  if (error) ThrowErrno("resolve", path, error.value());
  // "a/" means the directory a; drop its empty last component, so that the file name is "a".
  return absolute.has_filename() || !absolute.has_relative_path() ? absolute
                                                                  : absolute.parent_path();
}

std::string RandomSuffix() {
  std::uint64_t value = 0;
  if (getrandom(&value, sizeof value, 0) != sizeof value) ThrowErrno("read", "random bytes");
  return fmt::format("{:016x}", value);
}

}  // namespace msb::base
