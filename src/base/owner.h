// SPDX-License-Identifier: Apache-2.0
//
// Determines and sets the owners of files, so that several users can share a home, and a user can
// use the files that root creates in that user's home.

#ifndef MSB_SRC_BASE_OWNER_H_
#define MSB_SRC_BASE_OWNER_H_

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>

namespace msb::base {

// Returns true if the file or directory at path, following symbolic links, belongs to the user of
// this process. Returns false if it is absent.
inline bool BelongsToThisUser(const std::filesystem::path& path) {
  struct stat st;
  return stat(path.c_str(), &st) == 0 && st.st_uid == geteuid();
}

// If this process runs as root, changes the owner and group of the new file or directory fd to
// those of dir, in which it was created. Ignores failures: file systems that map users may refuse
// this.
inline void GiveToOwnerOf(int fd, int dir) {
  struct stat st;
  if (geteuid() != 0 || fstat(dir, &st) != 0 || st.st_uid == 0) return;
  if (fchown(fd, st.st_uid, st.st_gid) != 0) return;
}

// Returns true if the file system of path limits the number of inodes, and none is free.
inline bool HasNoFreeInodes(const std::filesystem::path& path) {
  struct statvfs file_system;
  return statvfs(path.c_str(), &file_system) == 0 && file_system.f_files != 0 &&
         file_system.f_favail == 0;
}

}  // namespace msb::base

#endif  // MSB_SRC_BASE_OWNER_H_
