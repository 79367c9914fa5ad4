// SPDX-License-Identifier: Apache-2.0
//
// Mounts file systems for the test alone, in a mount namespace of its own. Needs root.

#ifndef MSB_TESTS_SUPPORT_MOUNTS_H_
#define MSB_TESTS_SUPPORT_MOUNTS_H_

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace msb::test {

// Mounts file systems, and unmounts them when it is destroyed. Tmpfs(), InFile() and ReadOnly()
// return false if the system does not permit the mount; failure() then returns the reason, for
// GTEST_SKIP.
class PrivateMounts {
 public:
  PrivateMounts();
  PrivateMounts(const PrivateMounts&) = delete;
  PrivateMounts& operator=(const PrivateMounts&) = delete;
  ~PrivateMounts();

  // Mounts an empty file system of size bytes, which may hold this number of files and directories.
  bool Tmpfs(const std::filesystem::path& dir, std::uint64_t size, std::uint64_t inodes = 10000);
  // Mounts an empty file system of this type ("ext4", "xfs" or "btrfs") and of 512 MiB, which is in
  // a file beside dir.
  bool InFile(const std::filesystem::path& dir, const std::string& type);
  // Makes a directory and everything below it read-only.
  bool ReadOnly(const std::filesystem::path& dir);
  // Undoes the last mount.
  void Undo();

  const std::string& failure() const { return failure_; }

 private:
  bool Fail(const std::string& what);

  std::vector<std::filesystem::path> mounted_;
  std::string failure_;
};

// Writes to a new file until the file system has no space left. Returns the file's path.
std::filesystem::path FillDisk(const std::filesystem::path& dir);

// Runs function in a forked process as a user other than root. Returns the message of what it
// throws, or an empty string. Returns "skipped: …" if this process may not change its user.
std::string RunAsAnotherUser(const std::function<void()>& function);
// Does the same as this user and group.
std::string RunAsUser(uid_t user, gid_t group, const std::function<void()>& function);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_MOUNTS_H_
