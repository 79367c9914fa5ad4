// SPDX-License-Identifier: Apache-2.0

#include "src/base/staging.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "src/base/digest.h"
#include "src/base/file_system.h"
#include "src/base/remove_tree.h"
#include "src/base/rename.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

// The number of attempts to create or publish a stage if other processes remove it, its parent or
// its destination at once.
constexpr int kMaxStagingAttempts = 100;

[[noreturn]] void RefuseRemoved(const std::filesystem::path& parent) {
  Throw(ErrorKind::kIO,
        "cannot create a directory in {}: its file system does not permit that, as /proc does not, "
        "or another program keeps removing it; choose another place, or stop that program and try "
        "again",
        parent.native());
}

}  // namespace

LockedDirectory LockedDirectory::Open(const Context& ctx, const std::filesystem::path& parent,
                                      const std::string& name, LockMode mode) {
  LockedDirectory locked;
  UniqueFd dir = OpenDirectoryUnlessAbsent(parent);
  if (!dir) return locked;
  for (;;) {
    Entry entry = OpenEntryAt(dir.get(), name);
    if (entry.type != EntryType::kDirectory) return locked;
    Lock(ctx, entry.fd.get(), mode);
    LockedFd fd(std::move(entry.fd));
    // It may have been replaced or removed while this call waited for the lock.
    if (!IsSameFile(fd.get(), dir.get(), name)) continue;
    locked.parent_path_ = parent;
    locked.name_ = name;
    locked.parent_ = std::move(dir);
    locked.fd_ = std::move(fd);
    return locked;
  }
}

std::filesystem::path LockedDirectory::path() const {
  return parent_path_ / (hidden_.empty() ? name_ : hidden_);
}

void LockedDirectory::Hide() {
  const auto refuse_exchanged = [&] {
    Throw(ErrorKind::kIO,
          "{} was replaced by another program while it was being removed; try again",
          path().native());
  };
  // Other software does not take the lock.
  if (!IsSameFile(fd(), parent_.get(), name_)) refuse_exchanged();
  const std::string hidden = NewHiddenName(parent_.get(), kStagePrefix);
  const auto rename = [&] { return RenameNew(parent_.get(), name_, parent_.get(), hidden); };
  bool renamed = rename();
  if (!renamed && errno == EXDEV) {
    MakeRenameable(parent_.get(), name_, fd_);
    renamed = rename();
  }
  if (!renamed) ThrowErrnoOfEntry("rename", parent_.get(), name_);
  if (!IsSameFile(fd(), parent_.get(), hidden)) {
    RenameNew(parent_.get(), hidden, parent_.get(), name_);
    refuse_exchanged();
  }
  hidden_ = hidden;
  try {
    Sync(parent_.get());
  } catch (const Error&) {
    // After a failed flush, a crash may leave either state; since the call fails, undo the rename.
    PutBack();
    throw;
  }
}

bool LockedDirectory::PutBack() noexcept {
  if (hidden_.empty()) return true;
  if (!RenameNew(parent_.get(), hidden_, parent_.get(), name_)) return false;
  hidden_.clear();
  return true;
}

bool LockedDirectory::Delete(const Context& ctx) {
  if (hidden_.empty()) return true;
  try {
    if (!RemoveContents(ctx, fd())) return false;
    if (unlinkat(parent_.get(), hidden_.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
      ThrowErrno("delete", path().native());
    }
  } catch (const Error& e) {
    Throw(ErrorKind::kIO,
          "{} was removed, but some of its files, now in {}, cannot be deleted: {}; the next call "
          "that changes {} tries again",
          (parent_path_ / name_).native(), path().native(), e.what(), parent_path_.native());
  }
  hidden_.clear();
  return true;
}

Stage::Stage(const std::filesystem::path& parent, Parents parents) {
  // Another process may sweep the stage before it is locked, or remove a parent directory that it
  // had created.
  for (int attempt = 1;; ++attempt) {
    if (parents == Parents::kMake) made_.emplace(parent);
    if (Make(parent)) return;
    if (attempt == kMaxStagingAttempts) RefuseRemoved(parent);
  }
}

Stage::Stage(const Context& ctx, const std::filesystem::path& parent, const std::string& key,
             Parents parents)
    : is_kept_(true) {
  if (!IsHex(key, Digest::kHexDigits)) {
    Throw(ErrorKind::kInternal, "the key of a stage must have {} lower-case hex digits, but is {}",
          Digest::kHexDigits, key);
  }
  for (int attempt = 1;;) {
    ctx.Check();
    if (parents == Parents::kMake) made_.emplace(parent);
    bool created = false;
    if (Reopen(ctx, parent, key, created)) break;
    // Any number of other calls may have used and removed the stage while this one waited for it.
    if (parent_ && !created) continue;
    if (++attempt > kMaxStagingAttempts) RefuseRemoved(parent);
  }
  // From now on the stage is recent, even if this call does not change its content.
  if (futimens(fd_.get(), nullptr) != 0) ThrowErrno("set the time of", path_.native());
}

bool Stage::Reopen(const Context& ctx, const std::filesystem::path& parent, const std::string& key,
                   bool& created) {
  parent_ = made_ ? TryOpenDirectory(parent) : OpenDirectory(parent);
  if (!parent_) return false;
  const std::string name = fmt::format("{}{}-{}", kPullPrefix, LockDomain(parent_.get()), key);
  path_ = parent / name;
  created = mkdirat(parent_.get(), name.c_str(), 0777) == 0;
  if (!created && errno != EEXIST) {
    if (errno == ENOENT && made_) {
      parent_.Reset(-1);
      return false;
    }
    ThrowErrno("create a directory in", parent.native());
  }
  LockedDirectory locked = LockedDirectory::Open(ctx, parent, name);
  if (!locked) {
    const EntryType type = TypeAt(parent_.get(), name);
    if (type == EntryType::kAbsent || type == EntryType::kDirectory) return false;
    Throw(ErrorKind::kIO, "{} must be a directory, but is {}: remove it", path_.native(),
          Describe(type));
  }
  if (!IsOwn(locked.fd(), locked.parent_.get())) {
    Throw(ErrorKind::kIO,
          "{}, left by an interrupted call, belongs to another user; remove it, or use another "
          "directory",
          path_.native());
  }
  parent_ = std::move(locked.parent_);
  fd_ = std::move(locked.fd_);
  return true;
}

bool Stage::Make(const std::filesystem::path& parent) {
  parent_ = made_ ? TryOpenDirectory(parent) : OpenDirectory(parent);
  if (!parent_) return false;
  const std::string name = NewHiddenName(parent_.get(), kStagePrefix);
  if (mkdirat(parent_.get(), name.c_str(), 0777) != 0) {
    if (errno == ENOENT && made_) return false;
    ThrowErrno("create a directory in", parent.native());
  }
  path_ = parent / name;
  try {
    UniqueFd fd = OpenEntryAt(parent_.get(), name).fd;
    if (!fd || !TryLock(fd.get())) return false;
    fd_ = LockedFd(std::move(fd));
    return IsSameFile(fd_.get(), parent_.get(), name);
  } catch (const Error&) {
    unlinkat(parent_.get(), name.c_str(), AT_REMOVEDIR);
    throw;
  }
}

Stage::~Stage() {
  // Deleting takes one descriptor, and the process may have no other left.
  parent_.Reset(-1);
  try {
    if (replaced_) {
      replaced_.Delete(context_);
    } else if (published_.empty()) {
      if (!is_kept_) RemoveContents(Context::Background(), fd_.get());
      // This fails if the stage is kept with its content.
      const std::string self = "../" + path_.filename().native();
      unlinkat(fd_.get(), self.c_str(), AT_REMOVEDIR);
    }
  } catch (...) {
    // SweepStages tries again, and logs failures.
  }
}

bool Stage::Exchange(const std::string& name) {
  return ExchangeDirectories(parent_.get(), path_.filename(), name);
}

void Stage::SyncPublished() {
  try {
    Sync(parent_.get());
  } catch (const Error&) {
    // After a failed flush, a crash may leave either state; since the call fails, undo the rename.
    Withdraw();
    throw;
  }
}

bool Stage::Publish(const std::string& name) {
  Sync(fd_.get());
  if (!RenameNew(parent_.get(), path_.filename(), parent_.get(), name)) {
    if (errno == EEXIST) return false;
    ThrowErrnoAt("rename to", parent_.get(), name);
  }
  published_ = name;
  SyncPublished();
  return true;
}

bool Stage::PublishOver(const Context& ctx, const std::string& name,
                        const MayReplace& may_replace) {
  const std::filesystem::path parent = path_.parent_path();
  for (int attempt = 1; !Publish(name); ++attempt) {
    ctx.Check();
    LockedDirectory old = LockedDirectory::Open(ctx, parent, name);
    if (!old) {
      // A directory there was created after Open had found none: other calls remove and create it.
      const EntryType type = TypeAt(parent_.get(), name);
      const bool changes = type == EntryType::kAbsent || type == EntryType::kDirectory;
      if (changes && attempt < kMaxStagingAttempts) continue;
      return false;
    }
    if (!may_replace(old.fd(), old.path())) return false;
    if (!Replace(std::move(old), name)) continue;
    context_ = ctx;
    SyncPublished();
    return true;
  }
  return true;
}

// Exchanges the stage and the locked directory at name. Returns false, with nothing changed, if the
// name no longer leads to that directory: other software, which does not take the lock, has moved
// it.
bool Stage::Replace(LockedDirectory old, const std::string& name) {
  if (!IsSameFile(old.fd(), parent_.get(), name)) return false;
  bool exchanged = Exchange(name);
  if (!exchanged && errno == EXDEV) {
    MakeRenameable(parent_.get(), name, old.fd_);
    exchanged = Exchange(name);
  }
  if (!exchanged) {
    if (errno == ENOENT) return false;
    ThrowErrnoAt("replace", parent_.get(), name);
  }
  const std::string hidden = path_.filename();
  published_ = name;
  if (!IsSameFile(old.fd(), parent_.get(), hidden)) {
    if (Exchange(name) || RenameNew(parent_.get(), hidden, parent_.get(), name)) {
      published_.clear();
    }
    if (published_.empty() && IsSameFile(fd_.get(), parent_.get(), hidden)) return false;
    // It is better to leave a directory behind than to delete one that belongs to other software.
    published_ = name;
    Throw(ErrorKind::kIO,
          "{} was replaced by another program; its former content may be in {}: if you need it, "
          "move it from there",
          (path_.parent_path() / name).native(), path_.native());
  }
  old.hidden_ = hidden;
  replaced_ = std::move(old);
  return true;
}

bool Stage::Withdraw() noexcept {
  if (published_.empty() || !IsSameFile(fd_.get(), parent_.get(), published_)) return false;
  const bool withdrawn =
      replaced_ ? Exchange(published_)
                : RenameNew(parent_.get(), published_, parent_.get(), path_.filename());
  if (!withdrawn) return false;
  published_.clear();
  replaced_ = LockedDirectory();
  return true;
}

bool Stage::PublishEntry(const std::string& name, const std::string& target) {
  if (RenameNew(fd_.get(), name, parent_.get(), target)) return true;
  if (errno == EEXIST) return false;
  ThrowErrnoBetween("rename", {fd_.get(), name}, {parent_.get(), target});
}

void Stage::PublishFile(const std::string& name, const std::string& target) {
  const std::string place = (path_.parent_path() / target).native();
  // Where the file system has hard links, the old file is kept until the new one is on disk.
  const std::string kept = ".replaced-" + RandomSuffix();
  bool is_kept = false;
  bool replaced = false;
  while (!replaced && !RenameNew(fd_.get(), name, parent_.get(), target)) {
    if (errno != EEXIST) ThrowErrnoBetween("rename", {fd_.get(), name}, {parent_.get(), target});
    const EntryType type = TypeAt(parent_.get(), target);
    if (type == EntryType::kAbsent) continue;
    if (type != EntryType::kRegularFile) {
      Throw(ErrorKind::kInvalidArgument, "{} is {}; only a regular file can be replaced", place,
            Describe(type));
    }
    unlinkat(fd_.get(), kept.c_str(), 0);
    is_kept = linkat(parent_.get(), target.c_str(), fd_.get(), kept.c_str(), 0) == 0;
    if (!is_kept && errno == ENOENT) continue;
    if (!is_kept && !NeedsCopy(errno)) ThrowErrnoAt("replace", parent_.get(), target);
    // This can replace a file, but not a directory.
    replaced = renameat(fd_.get(), name.c_str(), parent_.get(), target.c_str()) == 0;
    if (!replaced && errno != EISDIR) {
      ThrowErrnoBetween("rename", {fd_.get(), name}, {parent_.get(), target});
    }
  }
  try {
    Sync(parent_.get());
  } catch (const Error& e) {
    // Undo the rename, as SyncPublished does.
    const bool undone =
        replaced ? is_kept && renameat(fd_.get(), kept.c_str(), parent_.get(), target.c_str()) == 0
                 : RenameNew(parent_.get(), target, fd_.get(), name);
    if (undone) throw;
    Throw(
        ErrorKind::kIO,
        "{}; {} is the new file, since this file system cannot undo the change, but after a power "
        "failure it may be the former file",
        e.what(), place);
  }
}

void ReplaceFileInStage(const std::filesystem::path& dir, const std::string& name,
                        std::string_view content, mode_t mode) {
  SweepStages(Context::Background(), dir, {});
  const Stage stage(dir);
  ReplaceFileAt(stage.parent_fd(), name, content, mode, stage.fd());
}

}  // namespace msb::base
