// SPDX-License-Identifier: Apache-2.0
//
// Provides operations on files and directories by descriptor. A function that takes a directory and
// a name looks the name up in that directory and does not follow a symbolic link there; the name
// must be a plain file name. Failures throw kIO unless stated otherwise.

#ifndef MSB_SRC_BASE_FILE_H_
#define MSB_SRC_BASE_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "src/base/descriptor.h"

namespace msb::base {

// A FileStamp identifies a file, and changes when the content of the file does.
struct FileStamp {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;     // Apparent size in bytes.
  std::int64_t mtime_ns = 0;  // Last change of the content.
  std::int64_t ctime_ns = 0;  // Last change of content, mode or links.
  std::uint64_t blocks = 0;   // Allocated, in units of 512 bytes.
  std::uint32_t mode = 0;     // Permission bits.
  std::uint32_t owner = 0;    // User id.
  std::uint64_t links = 0;    // Number of hard links.

  // Returns true if this is the same file with the same content, judging by its size and
  // modification time. Other calls may link the disk of a snapshot at any time, which changes
  // ctime_ns, so use this for disks that only msb uses, and IsUntouched for files that other
  // programs write to.
  bool SameContent(const FileStamp& other) const {
    return device == other.device && inode == other.inode && size == other.size &&
           mtime_ns == other.mtime_ns;
  }

  // Works like SameContent, but also returns false if a program wrote to the file and then set its
  // modification time back. Returns false as well if only the mode or the links changed.
  bool IsUntouched(const FileStamp& since) const {
    return SameContent(since) && ctime_ns == since.ctime_ns;
  }

  // Works like SameContent, but for a file that was given another hard link between the two stamps.
  // On a file system that is not local, link(2) may change the inode number, because overlayfs
  // first copies a file of a lower layer.
  bool SameContentLinked(const FileStamp& other, bool is_local) const {
    return SameContent(other) || (!is_local && size == other.size && mtime_ns == other.mtime_ns);
  }
};

// Returns the stamp of an open file.
FileStamp StampOf(int fd);
// Like StampOf, but also sees changes that were made on another mount or host. On FUSE and network
// file systems, StampOf may report what the kernel remembers.
FileStamp FreshStampOf(int fd);
// Returns the stamp of the file at path, or nullopt if path is absent or not a regular file. Does
// not follow a symbolic link at path.
std::optional<FileStamp> StampOf(const std::filesystem::path& path);
// Throws an error of this kind, which names the file, unless now is a stamp of the same file with
// the same content as before. action: what was done with the file meanwhile, such as "copied".
void CheckUnchanged(const FileStamp& before, const FileStamp& now, ErrorKind kind,
                    std::string_view name, std::string_view action);
// Calls read, which reads files, and then check_unchanged, which throws if one of them has changed
// meanwhile. Reading a file that shrinks fails before its former end, so check_unchanged is also
// called if read throws kIO.
template <typename CheckUnchangedFunction, typename Read>
void ReadUnchanged(const CheckUnchangedFunction& check_unchanged, const Read& read) {
  try {
    read();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kIO) check_unchanged();
    throw;
  }
  check_unchanged();
}

enum class EntryType { kAbsent, kRegularFile, kDirectory, kSymlink, kOther };

// Returns a description for messages, such as "a symbolic link".
std::string_view Describe(EntryType type);

// Returns the type of the entry dir/name without opening it.
EntryType TypeAt(int dir, const std::string& name);

// An Entry represents an entry of a directory. fd is open for reading if the entry is a regular
// file or a directory, and empty otherwise.
struct Entry {
  EntryType type = EntryType::kAbsent;
  UniqueFd fd;
};
Entry OpenEntryAt(int dir, const std::string& name);

// Returns true if this process may open path for reading and writing. Returns false with errno set
// if it may not, or if path is absent.
bool MayReadAndWrite(const std::filesystem::path& path);

// Returns true if path leads to the open file or directory fd, and false if path is absent or leads
// to another one.
bool LeadsTo(const std::filesystem::path& path, int fd);

// Opens the directory at path, following symbolic links. Returns an empty UniqueFd if path is
// absent or not a directory. Throws kIO if path is absent because a directory above it is a
// symbolic link to an absent one, such as a volume that is not mounted: nothing is known about path
// then.
UniqueFd TryOpenDirectory(const std::filesystem::path& path);
// Opens a directory that may not have been created yet, following symbolic links. Returns an empty
// UniqueFd if nothing is at path. Throws kIO if something else is there, such as a symbolic link to
// an absent directory.
UniqueFd OpenDirectoryUnlessAbsent(const std::filesystem::path& path);
// Throws kIO if what the directory at path holds cannot be known, because it cannot be looked up or
// is not a directory. Does nothing if there is a directory, readable or not, or nothing at path.
void CheckDirectoryUnlessAbsent(const std::filesystem::path& path);
// Opens the directory at path, following symbolic links. Throws kIO if it cannot be opened as a
// directory.
UniqueFd OpenDirectory(const std::filesystem::path& path);
// Opens the directory at path, which must be absolute, and creates it and its parents if they are
// missing. The new directories are on disk when this returns. One that root creates in another
// user's directory is given to that user. Calls made, if set, for each directory that was created,
// outermost first. Creates a parent again if another process removes it meanwhile.
UniqueFd MakeDirectory(const std::filesystem::path& path,
                       const std::function<void(const std::filesystem::path& path)>& made = {});
// Creates the directory dir/name. Throws kIO if the name exists.
void MakeDirectoryAt(int dir, const std::string& name);

// Creates the file dir/name and opens it for reading and writing. Throws kIO if the name exists.
UniqueFd CreateFileAt(int dir, const std::string& name, mode_t mode);

// Opens the file dir/name for reading and writing. Throws kIO if it is absent or not a regular
// file.
UniqueFd OpenForUpdateAt(int dir, const std::string& name);

struct DirectoryEntry {
  std::string name;
  EntryType type;
};
// Returns all entries except "." and "..", sorted by the bytes of their names. Throws kCancelled if
// ctx is done.
std::vector<DirectoryEntry> ListDirectory(int dir, const Context& ctx = Context::Background());

// Returns the content of an open file, or nullopt if it is longer than limit bytes.
std::optional<std::string> ReadAll(int fd, std::size_t limit);

// Read or write exactly size bytes at offset. ReadExactly throws kIO if the file ends earlier.
void ReadExactly(int fd, void* buffer, std::size_t size, std::uint64_t offset);
void WriteExactly(int fd, const void* buffer, std::size_t size, std::uint64_t offset);

// Truncates the file to size bytes, or extends it with a hole.
void Resize(int fd, std::uint64_t size);

// Creates dir/name, which must not exist, as a hard link to existing. Returns false if a hard link
// is impossible, so that the file must be copied instead (NeedsCopy).
bool TryLinkFile(const std::filesystem::path& existing, int dir, const std::string& name);

enum class MoveResult { kMoved, kTargetExists, kOtherFileSystem };
// Renames a file without replacing an existing file. A crash may undo this until both directories
// are flushed.
MoveResult MoveFileAt(int dir, const std::string& name, int target_dir, const std::string& target);

// Sets the permission bits.
void SetMode(int fd, mode_t mode);
// Does the same for a protection from mistakes: logs once that a file system, such as CIFS, does
// not permit it for the files of this user. Throws kIO if the file belongs to another user.
void TrySetMode(int fd, mode_t mode);

// Flushes the content and metadata of a file or directory to disk. Does nothing for a directory on
// a file system that cannot flush directories; this is logged once.
void Sync(int fd);
// Flushes a directory and all directories beneath it, without following symbolic links. Does not
// flush the files in them.
void SyncDirectories(int dir);
// Asks the kernel to begin writing these bytes to disk, so that a later Sync takes less time. This
// is only a hint: it does not wait for the bytes to be written, and errors are ignored.
void BeginWriteback(int fd, std::uint64_t offset, std::uint64_t length);

// Returns the number of bytes that may still be written to the file system of an open file or
// directory. Returns nullopt if the file system does not report it; tmpfs without a limit and
// ramfs, for example, report 0 blocks in total.
std::optional<std::uint64_t> FreeSpace(int fd);

// Creates a file with this content and flushes the file, but not the directory.
void WriteNewFileAt(int dir, const std::string& name, std::string_view content, mode_t mode);
// Creates the file dir/name, or replaces it atomically: after a crash it has either the old or the
// new content. The new file is on disk when this returns. It is first written under a hidden name
// in temporary_dir (default: dir), where a crash may leave it.
void ReplaceFileAt(int dir, const std::string& name, std::string_view content, mode_t mode,
                   std::optional<int> temporary_dir = std::nullopt);

// Renames the file dir/name to dir/target, replacing a file that exists there, and flushes dir.
void RenameOverAt(int dir, const std::string& name, const std::string& target);

// Removes a file. Returns false if it is absent.
bool RemoveFile(const std::filesystem::path& path);

// Returns path as an absolute path without ".", ".." or a trailing "/". Expands "~" and a leading
// "~/". Does not access the file system, so symbolic links are not resolved. Throws kInvalidConfig
// if "~" must be expanded and HOME is not set. Throws kInvalidArgument if path is empty.
// Throws kIO if path is relative and the current directory was removed.
std::filesystem::path AbsolutePath(const std::string& path);

// Returns true if path is beneath dir, judging by their spelling alone.
bool IsBeneath(const std::filesystem::path& path, const std::filesystem::path& dir);

// Returns 16 random hex digits.
std::string RandomSuffix();

}  // namespace msb::base

#endif  // MSB_SRC_BASE_FILE_H_
