// Files and directories by descriptor. Functions that take a directory and a name open what the
// name is in that directory and never follow a symbolic link; the name must be a plain one.
// Failures throw kIO unless said otherwise.

#ifndef MSB_SRC_BASE_FILE_H_
#define MSB_SRC_BASE_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace msb::base {

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(-1); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void Reset(int fd);
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// What identifies a file and changes when its content does.
struct FileStamp {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;     // Bytes, apparent.
  std::int64_t mtime_ns = 0;  // Last change of the content.
  std::int64_t ctime_ns = 0;  // Last change of content, mode or links.
  std::uint64_t blocks = 0;   // Allocated, in units of 512 bytes.
  std::uint32_t mode = 0;     // Permission bits.
  std::uint64_t links = 0;    // Names that it has.

  // The same file with the same content, as far as a stamp can tell.
  bool SameContent(const FileStamp& other) const {
    return device == other.device && inode == other.inode && size == other.size &&
           mtime_ns == other.mtime_ns;
  }
};

FileStamp StampOf(int fd);
// Nothing if there is no regular file at path; a symbolic link counts as none.
std::optional<FileStamp> StampOf(const std::filesystem::path& path);

enum class EntryType { kAbsent, kRegularFile, kDirectory, kSymlink, kOther };

// "a symbolic link", …: for messages.
std::string_view Describe(EntryType type);

// A name in a directory; fd is open for reading if it is a regular file or a directory.
struct Entry {
  EntryType type = EntryType::kAbsent;
  UniqueFd fd;
};
Entry OpenEntryAt(int dir, const std::string& name);

// Whether this process may open what is at path for reading and writing; false if nothing is there.
bool MayReadAndWrite(const std::filesystem::path& path);

// Follows symbolic links; an empty UniqueFd if path is absent or no directory.
UniqueFd TryOpenDirectory(const std::filesystem::path& path);
UniqueFd OpenDirectory(const std::filesystem::path& path);
// Makes the directory and its parents where they are absent, on disk when it returns. path is
// absolute.
UniqueFd MakeDirectory(const std::filesystem::path& path);
// Makes a directory in another; fails if the name exists.
void MakeDirectoryAt(int dir, const std::string& name);

// Opens a new file for reading and writing; fails if the name exists.
UniqueFd CreateFileAt(int dir, const std::string& name, mode_t mode);

struct DirectoryEntry {
  std::string name;
  EntryType type;
};
// All names but "." and "..", sorted by their bytes.
std::vector<DirectoryEntry> ListDirectory(int dir);

// The whole content of an open file; nothing if it is longer than limit bytes.
std::optional<std::string> ReadAll(int fd, std::size_t limit);

// Reads or writes exactly size bytes at offset. ReadExactly throws if the file ends before.
void ReadExactly(int fd, void* buffer, std::size_t size, std::uint64_t offset);
void WriteExactly(int fd, const void* buffer, std::size_t size, std::uint64_t offset);

// Cuts the file to size bytes, or extends it with a hole.
void Resize(int fd, std::uint64_t size);

// Gives a file a second name, which must not exist, on the same file system.
void LinkFile(const std::filesystem::path& existing, const std::filesystem::path& name);

// As LinkFile, to dir/name; false where that cannot be done, and a copy is needed.
bool TryLinkFile(const std::filesystem::path& existing, int dir, const std::string& name);

enum class MoveResult { kMoved, kTargetExists, kOtherFileSystem };
// Renames a file, never over another one; a crash may undo that until the directories are flushed.
MoveResult MoveFileAt(int dir, const std::string& name, int target_dir, const std::string& target);

// Sets the permission bits.
void SetMode(int fd, mode_t mode);

// Flushes a file's or directory's content and metadata to the disk.
void Sync(int fd);
// Flushes the names in a directory and in all below it, without following links.
void SyncDirectories(int dir);
// Has the kernel begin to write these bytes to the disk. A hint, so that Sync later takes less: it
// neither waits nor fails.
void BeginWriteback(int fd, std::uint64_t offset, std::uint64_t length);

// Bytes that may still be written to the file system of an open file or directory.
std::uint64_t FreeSpace(int fd);

// Makes a file with this content, on disk when it returns.
void WriteNewFileAt(int dir, const std::string& name, std::string_view content, mode_t mode);
// As WriteNewFileAt, but in place of what may be there: after a crash it is the old or the new.
void ReplaceFileAt(int dir, const std::string& name, std::string_view content, mode_t mode);

// Renames a file within a directory, over one that may be there, on disk when it returns.
void RenameOverAt(int dir, const std::string& name, const std::string& target);

// Removes a file; false if it was absent.
bool RemoveFile(const std::filesystem::path& path);
// Removes a tree without following links; what is gone already is no error.
void RemoveTree(const std::filesystem::path& path);

// Absolute and without "." and ".."; expands a leading "~/". Does not touch the file system.
std::filesystem::path AbsolutePath(const std::string& path);

// 16 random hex digits.
std::string RandomSuffix();

}  // namespace msb::base

#endif  // MSB_SRC_BASE_FILE_H_
