// SPDX-License-Identifier: Apache-2.0

#include "src/base/file_system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string_view>

#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/process.h"
#include "src/base/rename.h"

namespace msb::base {
namespace {

// Types as statfs(2) reports them; <linux/magic.h> does not define all of these.
constexpr std::array<std::uint32_t, 13> kLocalFileSystems = {
    0xef53,      // ext2, ext3, ext4
    0x58465342,  // XFS
    0x9123683e,  // Btrfs
    0x01021994,  // tmpfs
    0x858458f6,  // ramfs
    0xf2f52010,  // F2FS
    0x2fc12fc1,  // ZFS
    0xca451a4e,  // bcachefs
    0x52654973,  // ReiserFS
    0x3153464a,  // JFS
    0x4d44,      // FAT
    0x2011bab0,  // exFAT
    0x7366746e,  // NTFS
};

std::optional<std::uint32_t> TypeOfFileSystem(int fd) {
  struct statfs file_system;
  if (fstatfs(fd, &file_system) != 0) return std::nullopt;
  return static_cast<std::uint32_t>(file_system.f_type);
}

bool IsLocal(std::uint32_t type) {
  return std::find(kLocalFileSystems.begin(), kLocalFileSystems.end(), type) !=
         kLocalFileSystems.end();
}

}  // namespace

bool IsUnsupported(int error) {
  constexpr int kNotSupported = 524;  // The kernel's own ENOTSUPP, which some file systems return.
  return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == ENOTTY ||
         error == kNotSupported;
}

bool MeansAbsent(int error) {
  return error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG || error == ESTALE;
}

bool NeedsCopy(int error) {
  return IsUnsupported(error) || error == EXDEV || error == EPERM || error == EACCES ||
         error == EMLINK;
}

bool IsLocalFileSystem(int fd) {
  const auto type = TypeOfFileSystem(fd);
  return type && IsLocal(*type);
}

bool IsOverlayFileSystem(int fd) { return TypeOfFileSystem(fd) == OVERLAYFS_SUPER_MAGIC; }

bool TimesFollowStores(int fd) {
  const auto type = TypeOfFileSystem(fd);
  if (type == TMPFS_MAGIC || type == RAMFS_MAGIC || type == HUGETLBFS_MAGIC) return false;
  if (type != OVERLAYFS_SUPER_MAGIC) return type.has_value();
  auto extents = fiemap();  // Not {}: a list would initialize its array of no length.
  extents.fm_length = 1;
  return ioctl(fd, FS_IOC_FIEMAP, &extents) == 0;
}

std::string LockDomain(int dir) {
  const std::uint32_t type = TypeOfFileSystem(dir).value_or(0);
  std::string domain = fmt::format("{:08x}", type);
  if (!IsLocal(type)) domain += fmt::format(" {} {}", StampOf(dir).device, BootId());
  return Sha256Hex(domain).substr(0, 8);
}

bool IsOwn(int fd, int parent) {
  struct stat st;
  if (fstat(fd, &st) != 0) return false;
  if (st.st_uid == geteuid()) return true;
  const std::string probe = NewHiddenName(parent, kStagePrefix);
  struct stat own;
  if (mkdirat(parent, probe.c_str(), 0700) != 0) return false;
  const bool found = fstatat(parent, probe.c_str(), &own, AT_SYMLINK_NOFOLLOW) == 0;
  unlinkat(parent, probe.c_str(), AT_REMOVEDIR);
  return found && own.st_uid == st.st_uid;
}

}  // namespace msb::base
