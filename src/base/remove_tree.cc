// SPDX-License-Identifier: Apache-2.0

#include "src/base/remove_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>
#include <string>
#include <string_view>

#include "src/base/file.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr int kMaxSweeps = 100;

constexpr int kOpenFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr unsigned kCheckInterval = 64;  // Entries between two checks of the Context.

// FUSE renames a file that is open to a name with this prefix instead of deleting it, every time.
constexpr std::string_view kHiddenPrefix = ".fuse_hidden";
constexpr int kMaxHidden = 16;  // How many such names are deleted before the file counts as in use.

// Gives the owner all permissions on an open directory. Returns false if the owner already has
// them, or they cannot be changed. Preserves errno.
bool MakeWritable(int dir) {
  const int error = errno;
  struct stat st;
  const bool changed = fstat(dir, &st) == 0 && (st.st_mode & 0700) != 0700 &&
                       fchmod(dir, (st.st_mode & 07777) | 0700) == 0;
  errno = error;
  return changed;
}

bool Unlink(int dir, const char* name, int flags) {
  if (unlinkat(dir, name, flags) == 0) return true;
  return errno == EACCES && MakeWritable(dir) && unlinkat(dir, name, flags) == 0;
}

// Empties a directory. Instead of descending, moves directories of the second level up to the
// first, so that it needs only one more descriptor.
class Remover {
 public:
  Remover(const Context& ctx, int top) : ctx_(ctx), top_(top) {}

  bool Run() {
    do {
      failure_.reset();
    } while (!stopped_ && EmptyOnce(top_));
    if (stopped_) return false;
    if (failure_) ThrowErrnoOfEntry("delete", AT_FDCWD, failure_->path, failure_->error);
    return true;
  }

 private:
  struct Failure {
    std::string path;
    int error;
  };

  // Goes over the entries once. Returns true if it changed anything: then there may be more to do.
  bool EmptyOnce(int dir) {
    bool changed = false;
    alignas(dirent64) std::array<char, 16384> buffer;
    if (lseek(dir, 0, SEEK_SET) < 0) return Fail(dir, ".");
    for (;;) {
      const ssize_t size = getdents64(dir, buffer.data(), buffer.size());
      if (size < 0) Fail(dir, ".");
      if (size <= 0) return changed;
      for (ssize_t at = 0; at < size;) {
        const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
        at += entry->d_reclen;
        const std::string_view name = entry->d_name;
        if (name == "." || name == "..") continue;
        if (++entries_ % kCheckInterval == 0 && ctx_.Done()) stopped_ = true;
        if (stopped_) return changed;
        changed |= Remove(dir, entry->d_name, entry->d_type);
      }
    }
  }

  bool Remove(int dir, const char* name, unsigned char type) {
    if (type != DT_DIR) {
      if (std::string_view(name).starts_with(kHiddenPrefix) && ++hidden_ > kMaxHidden) {
        errno = EBUSY;
        return Fail(dir, name);
      }
      if (Unlink(dir, name, 0)) return true;
      if (errno != EISDIR) return Fail(dir, name);
    }
    if (Unlink(dir, name, AT_REMOVEDIR)) return true;
    if (errno != ENOTEMPTY && errno != EEXIST) return Fail(dir, name);
    return dir == top_ ? RemoveChild(name) : MoveUp(dir, name);
  }

  bool RemoveChild(const char* name) {
    UniqueFd child = OpenAt(top_, name, kOpenFlags);
    if (!child && errno == EACCES && fchmodat(top_, name, 0700, AT_SYMLINK_NOFOLLOW) == 0) {
      child = OpenAt(top_, name, kOpenFlags);
    }
    if (!child) return Fail(top_, name);
    bool changed = false;
    while (!stopped_ && EmptyOnce(child.get())) changed = true;
    if (stopped_ || Unlink(top_, name, AT_REMOVEDIR)) return true;
    if (!failure_) Fail(top_, name);
    return changed;
  }

  bool MoveUp(int dir, const char* name) {
    const std::string target = ".msb-moved-" + RandomSuffix();
    if (renameat(dir, name, top_, target.c_str()) == 0) return true;
    if (errno == EXDEV) return RemoveInPlace(dir, name);
    // Moving a directory changes both parents and the directory itself, so all must be writable.
    if (errno != EACCES) return Fail(dir, name);
    MakeWritable(dir);
    const bool moved = fchmodat(dir, name, 0700, AT_SYMLINK_NOFOLLOW) == 0 &&
                       renameat(dir, name, top_, target.c_str()) == 0;
    return moved || Fail(dir, name);
  }

  // Deletes a directory that cannot be moved because it is in a lower layer of overlayfs. Takes a
  // descriptor for each level.
  bool RemoveInPlace(int dir, const char* name) {
    const UniqueFd child = OpenAt(dir, name, kOpenFlags);
    if (!child) return Fail(dir, name);
    Remover remover(ctx_, child.get());
    if (!remover.Run()) {
      stopped_ = true;
      return true;
    }
    return Unlink(dir, name, AT_REMOVEDIR) || Fail(dir, name);
  }

  // Records the first failure, unless the entry has disappeared. Returns false, as nothing was
  // changed.
  bool Fail(int dir, std::string_view name) {
    const int error = errno;
    // ESTALE: another host has removed its directory, on NFS.
    if (error != ENOENT && error != ESTALE && !failure_) failure_ = {PathOf(dir, name), error};
    return false;
  }

  const Context& ctx_;
  const int top_;
  unsigned entries_ = 0;
  int hidden_ = 0;
  bool stopped_ = false;
  std::optional<Failure> failure_;
};

}  // namespace

bool RemoveContents(const Context& ctx, int dir) { return Remover(ctx, dir).Run(); }

void RemoveTreeAt(int parent, const std::string& name) {
  if (Unlink(parent, name.c_str(), 0) || errno == ENOENT) return;
  if (errno != EISDIR) ThrowErrnoOfEntry("delete", parent, name);
  const UniqueFd dir = OpenAt(parent, name.c_str(), kOpenFlags);
  if (!dir && errno == ENOENT) return;
  if (!dir) ThrowErrnoAt("delete", parent, name);
  // Another call that deletes the same tree may move a directory up after this call has passed that
  // point.
  for (int attempt = 0; attempt < kMaxSweeps; ++attempt) {
    RemoveContents(Context::Background(), dir.get());
    if (Unlink(parent, name.c_str(), AT_REMOVEDIR) || errno == ENOENT) return;
    if (errno != ENOTEMPTY && errno != EEXIST) break;
  }
  ThrowErrnoOfEntry("delete", parent, name);
}

void RemoveTree(const std::filesystem::path& path) {
  const UniqueFd parent = TryOpenDirectory(path.parent_path());
  if (parent) RemoveTreeAt(parent.get(), path.filename());
}

}  // namespace msb::base
