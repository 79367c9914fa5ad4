// SPDX-License-Identifier: Apache-2.0
//
// Determines the differences between file systems, and the errors that require a fallback.

#ifndef MSB_SRC_BASE_FILE_SYSTEM_H_
#define MSB_SRC_BASE_FILE_SYSTEM_H_

#include <string>

namespace msb::base {

// Returns true if the error means that the file system or the kernel does not support the call:
// EINVAL, ENOSYS, EOPNOTSUPP or ENOTTY.
bool IsUnsupported(int error);

// Returns true if the error of a call on a path means that nothing is there: ENOENT; ENOTDIR;
// ENAMETOOLONG, since no such name can exist; or ESTALE, with which NFS reports that another host
// has removed the file or the directory.
bool MeansAbsent(int error);

// Returns true if the error, which link(2) has returned, means that the file cannot have another
// hard link and must be copied: an IsUnsupported error, EXDEV, EPERM, EACCES or EMLINK.
bool NeedsCopy(int error);

// Returns true for file systems that only one kernel uses at a time, and that all processes of that
// kernel access directly, such as ext4, XFS, Btrfs and tmpfs. Returns false for network file
// systems, FUSE, 9p, virtiofs, overlayfs and unknown file systems. fd is a file on the file system;
// returns false if it is not open.
bool IsLocalFileSystem(int fd);

// Returns true if the file is on an overlayfs. Returns false if fd is not open.
bool IsOverlayFileSystem(int fd);

// Returns true if a store through a shared mapping always changes the modification time of the
// file, provided that its pages were flushed before. Returns false on tmpfs and ramfs, which never
// flush pages: there, a program that maps a file and reads a page before it writes to it leaves the
// time as it was. Also returns false on overlayfs, unless the underlying file system reports
// extents, which file systems in memory do not. Returns true on FUSE and network file systems; they
// do not report stores of programs that map the underlying file, if that is in memory.
bool TimesFollowStores(int fd);

// Returns a name, eight hex digits, for the set of processes that see the locks (flock) that this
// process takes on directories in dir. On a local file system, the set consists of all processes
// that use the file system. On any other file system, it consists of the processes of this boot of
// this machine that use the same mount, because FUSE and overlayfs do not pass locks on to the
// underlying files, and NFS does not pass on locks on directories.
std::string LockDomain(int dir);

// Returns true if an open file belongs to the user of this process. Compares it with a new
// directory in parent, an open directory, if necessary, because some file systems map owners.
bool IsOwn(int fd, int parent);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_FILE_SYSTEM_H_
