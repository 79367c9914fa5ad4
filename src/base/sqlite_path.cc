// SPDX-License-Identifier: Apache-2.0

#include "src/base/sqlite_path.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>
#include <system_error>
#include <utility>

#include "src/base/file.h"
#include "src/base/fork.h"

namespace msb::base {
namespace {

// SQLite allows 512 bytes, including the suffix "-journal".
constexpr std::size_t kMaxSqlitePath = 480;

constexpr std::string_view kPlainInUri =
    "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

int CopyPath(sqlite3_vfs* /*vfs*/, const char* path, int size, char* out) {
  const std::size_t length = std::strlen(path) + 1;
  if (length > static_cast<std::size_t>(size)) return SQLITE_CANTOPEN;
  std::memcpy(out, path, length);
  return SQLITE_OK;
}

// The default VFS, except that it does not resolve paths.
class VerbatimVfs {
 public:
  VerbatimVfs() : name_(fmt::format("msb-verbatim-{}", static_cast<const void*>(this))) {
    sqlite3_initialize();
    vfs_ = *sqlite3_vfs_find(nullptr);
    vfs_.pNext = nullptr;
    vfs_.zName = name_.c_str();
    vfs_.xFullPathname = CopyPath;
    sqlite3_vfs_register(&vfs_, 0);
  }
  VerbatimVfs(const VerbatimVfs&) = delete;
  VerbatimVfs& operator=(const VerbatimVfs&) = delete;
  ~VerbatimVfs() { sqlite3_vfs_unregister(&vfs_); }

  const char* name() const { return name_.c_str(); }

 private:
  const std::string name_;
  sqlite3_vfs vfs_{};
};

VerbatimVfs& Vfs() {
  static constinit Lazy<VerbatimVfs> vfs;
  return vfs.Get();
}

// Shares the descriptors of the directories that are in use.
class Directories {
 public:
  std::shared_ptr<const UniqueFd> Share(UniqueFd fd) {
    const FileStamp stamp = StampOf(fd.get());
    const std::lock_guard lock(mutex_);
    std::weak_ptr<const UniqueFd>& known = open_[{stamp.device, stamp.inode}];
    std::shared_ptr<const UniqueFd> shared = known.lock();
    if (!shared) {
      shared = std::make_shared<const UniqueFd>(std::move(fd));
      known = shared;
    }
    return shared;
  }

 private:
  std::mutex mutex_;  // Guards open_; locked only in a ForkSafeSection.
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::weak_ptr<const UniqueFd>> open_;
};

Directories& OpenDirectories() {
  static constinit Lazy<Directories> directories;
  return directories.Get();
}

}  // namespace

SqlitePath::SqlitePath(const std::filesystem::path& path) : name_(path.native()) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::canonical(path.parent_path(), error);
  const std::size_t resolved = parent.native().size() + path.filename().native().size() + 1;
  if (error || std::max(resolved, name_.size()) <= kMaxSqlitePath) return;
  const ForkSafeSection section;
  directory_ = OpenDirectories().Share(OpenDirectory(path.parent_path()));
  name_ = fmt::format("/proc/self/fd/{}/{}", directory_->get(), path.filename().native());
}

std::string SqlitePath::Uri() const {
  std::string uri = "file:";
  for (const char c : name_) {
    if (kPlainInUri.find(c) != std::string_view::npos) {
      uri += c;
    } else {
      uri += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return uri;
}

const char* SqlitePath::vfs() const { return directory_ ? Vfs().name() : nullptr; }

}  // namespace msb::base
