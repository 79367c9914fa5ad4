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
#include <memory>
#include <system_error>

#include "src/base/throw.h"

namespace msb::base {
namespace {

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
          .links = static_cast<std::uint64_t>(st.st_nlink)};
}

EntryType TypeOf(mode_t mode) {
  if (S_ISREG(mode)) return EntryType::kRegularFile;
  if (S_ISDIR(mode)) return EntryType::kDirectory;
  if (S_ISLNK(mode)) return EntryType::kSymlink;
  return EntryType::kOther;
}

EntryType TypeAt(int dir, const char* name) {
  struct stat st;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) return TypeOf(st.st_mode);
  if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG) ThrowErrno("look up", name);
  return EntryType::kAbsent;
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

void ThrowErrno(std::string_view action, std::string_view path, int error) {
  Throw(ErrorKind::kIO, "cannot {} {}: {}", action, path,
        std::error_code(error, std::generic_category()).message());
}

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

FileStamp StampOf(int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0) ThrowErrno("stat", "an open file");
  return ToStamp(st);
}

std::optional<FileStamp> StampOf(const std::filesystem::path& path) {
  struct stat st;
  if (lstat(path.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) return std::nullopt;
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

Entry OpenEntryAt(int dir, const std::string& name) {
  // The type is looked at before opening, since opening a device may have effects, and again
  // after, since the name may have become something else.
  const EntryType type = TypeAt(dir, name.c_str());
  if (type != EntryType::kRegularFile && type != EntryType::kDirectory) return {type, UniqueFd()};
  const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  UniqueFd fd(openat(dir, name.c_str(), flags));
  if (!fd) {
    if (errno == ENOENT) return {};
    if (errno == ELOOP) return {EntryType::kSymlink, UniqueFd()};
    ThrowErrno("open", name);
  }
  struct stat st;
  if (fstat(fd.get(), &st) != 0) ThrowErrno("stat", name);
  if (TypeOf(st.st_mode) != type) return {TypeOf(st.st_mode), UniqueFd()};
  return {type, std::move(fd)};
}

bool MayReadAndWrite(const std::filesystem::path& path) {
  return faccessat(AT_FDCWD, path.c_str(), R_OK | W_OK, AT_EACCESS) == 0;
}

UniqueFd TryOpenDirectory(const std::filesystem::path& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd && errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG) {
    ThrowErrno("open directory", path.native());
  }
  return fd;
}

UniqueFd OpenDirectory(const std::filesystem::path& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) ThrowErrno("open directory", path.native());
  return fd;
}

UniqueFd MakeDirectory(const std::filesystem::path& path) {
  if (UniqueFd there = TryOpenDirectory(path)) return there;
  const UniqueFd parent =
      path.has_relative_path() ? MakeDirectory(path.parent_path()) : OpenDirectory(path);
  if (mkdirat(parent.get(), path.filename().c_str(), 0777) != 0 && errno != EEXIST) {
    ThrowErrno("create directory", path.native());
  }
  Sync(parent.get());
  return OpenDirectory(path);
}

void MakeDirectoryAt(int dir, const std::string& name) {
  if (mkdirat(dir, name.c_str(), 0777) != 0) ThrowErrno("create directory", name);
}

void LinkFile(const std::filesystem::path& existing, const std::filesystem::path& name) {
  if (link(existing.c_str(), name.c_str()) != 0) ThrowErrno("link to", name.native());
}

bool TryLinkFile(const std::filesystem::path& existing, int dir, const std::string& name) {
  if (linkat(AT_FDCWD, existing.c_str(), dir, name.c_str(), 0) == 0) return true;
  // Another file system, one without links, too many of them, or a file that is another user's.
  if (errno == EXDEV || errno == EPERM || errno == EMLINK || errno == EOPNOTSUPP) return false;
  ThrowErrno("link to", existing.native());
}

MoveResult MoveFileAt(int dir, const std::string& name, int target_dir, const std::string& target) {
  if (renameat2(dir, name.c_str(), target_dir, target.c_str(), RENAME_NOREPLACE) == 0) {
    return MoveResult::kMoved;
  }
  if (errno == EEXIST) return MoveResult::kTargetExists;
  if (errno != EXDEV) ThrowErrno("rename to", target);
  return MoveResult::kOtherFileSystem;
}

UniqueFd CreateFileAt(int dir, const std::string& name, mode_t mode) {
  UniqueFd fd(openat(dir, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!fd) ThrowErrno("create", name);
  return fd;
}

std::vector<DirectoryEntry> ListDirectory(int dir) {
  // A descriptor of its own: reading a directory moves the position that duplicates share.
  UniqueFd own(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own) ThrowErrno("open directory", ".");
  const auto close_stream = [](DIR* stream) { closedir(stream); };
  std::unique_ptr<DIR, decltype(close_stream)> stream(fdopendir(own.get()), close_stream);
  if (!stream) ThrowErrno("read directory", ".");
  own.Release();  // The stream owns it now.
  std::vector<DirectoryEntry> entries;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    entries.push_back({std::string(name), TypeOf(dir, *entry)});
  }
  if (errno != 0) ThrowErrno("read directory", ".");
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return entries;
}

std::optional<std::string> ReadAll(int fd, std::size_t limit) {
  const std::uint64_t size = StampOf(fd).size;
  if (size > limit) return std::nullopt;
  // One byte more than the size says, to see the end in the same call.
  std::string content(std::min<std::size_t>(size + 1, limit + 1), '\0');
  std::size_t length = 0;
  for (;;) {
    const ssize_t n =
        pread(fd, content.data() + length, content.size() - length, static_cast<off_t>(length));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) ThrowErrno("read", "an open file");
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
    const ssize_t n = pread(fd, bytes, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) ThrowErrno("read", "an open file");
    if (n == 0) Throw(ErrorKind::kIO, "file ends at byte {}, {} bytes early", offset, size);
    bytes += n;
    size -= static_cast<std::size_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
}

void WriteExactly(int fd, const void* buffer, std::size_t size, std::uint64_t offset) {
  const auto* bytes = static_cast<const char*>(buffer);
  while (size > 0) {
    const ssize_t n = pwrite(fd, bytes, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) ThrowErrno("write", "an open file");
    bytes += n;
    size -= static_cast<std::size_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
}

void Resize(int fd, std::uint64_t size) {
  if (ftruncate(fd, static_cast<off_t>(size)) != 0) ThrowErrno("resize", "an open file");
}

void SetMode(int fd, mode_t mode) {
  if (fchmod(fd, mode) != 0) ThrowErrno("set the mode of", "an open file");
}

void Sync(int fd) {
  if (fsync(fd) != 0) ThrowErrno("flush", "an open file or directory");
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

std::uint64_t FreeSpace(int fd) {
  struct statvfs file_system;
  if (fstatvfs(fd, &file_system) != 0) ThrowErrno("find the free space of", "a file system");
  return std::uint64_t{file_system.f_bavail} * file_system.f_frsize;
}

void WriteNewFileAt(int dir, const std::string& name, std::string_view content, mode_t mode) {
  const UniqueFd fd = CreateFileAt(dir, name, mode);
  WriteExactly(fd.get(), content.data(), content.size(), 0);
  Sync(fd.get());
}

void ReplaceFileAt(int dir, const std::string& name, std::string_view content, mode_t mode) {
  const std::string temporary = "." + name + "." + RandomSuffix();
  try {
    WriteNewFileAt(dir, temporary, content, mode);
    if (renameat(dir, temporary.c_str(), dir, name.c_str()) != 0) ThrowErrno("rename", name);
  } catch (...) {
    unlinkat(dir, temporary.c_str(), 0);
    throw;
  }
  Sync(dir);
}

void RenameOverAt(int dir, const std::string& name, const std::string& target) {
  if (renameat(dir, name.c_str(), dir, target.c_str()) != 0) ThrowErrno("rename", name);
  Sync(dir);
}

bool RemoveFile(const std::filesystem::path& path) {
  if (unlink(path.c_str()) == 0) return true;
  if (errno != ENOENT) ThrowErrno("remove", path.native());
  return false;
}

void RemoveTree(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  // Two processes may sweep the same tree at once; then each finds parts of it gone.
  if (error && error != std::errc::no_such_file_or_directory) {
    ThrowErrno("remove", path.native(), error.value());
  }
}

std::filesystem::path AbsolutePath(const std::string& path) {
  std::filesystem::path expanded = path;
  if (path == "~" || path.starts_with("~/")) {
    const char* home = std::getenv("HOME");
    if (home == nullptr || *home == '\0') {
      Throw(ErrorKind::kInvalidConfig, "cannot expand {}: HOME is not set", path);
    }
    expanded = std::string(home) + path.substr(1);
  }
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(expanded, error).lexically_normal();
  if (error) ThrowErrno("resolve", path, error.value());
  // "a/" names the directory a; an empty last component would hide its name.
  return absolute.has_filename() || !absolute.has_relative_path() ? absolute
                                                                  : absolute.parent_path();
}

std::string RandomSuffix() {
  std::uint64_t value = 0;
  if (getrandom(&value, sizeof value, 0) != sizeof value) ThrowErrno("read", "random bytes");
  return fmt::format("{:016x}", value);
}

}  // namespace msb::base
