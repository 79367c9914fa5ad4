#include "src/base/staging.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "src/base/throw.h"

namespace msb::base {
namespace {

constexpr std::string_view kPrefix = ".msb-stage-";

bool IsSameFile(int fd, int dir, const std::string& name) {
  struct stat ours;
  struct stat theirs;
  return fstat(fd, &ours) == 0 && fstatat(dir, name.c_str(), &theirs, AT_SYMLINK_NOFOLLOW) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

// As far as possible: what cannot be removed must not keep others from working here.
void RemoveStaleStages(int parent, const std::filesystem::path& path) {
  for (const DirectoryEntry& entry : ListDirectory(parent)) {
    if (entry.type != EntryType::kDirectory || !entry.name.starts_with(kPrefix)) continue;
    try {
      const Entry stale = OpenEntryAt(parent, entry.name);
      if (stale.fd && TryLock(stale.fd.get())) RemoveTree(path / entry.name);
    } catch (const Error&) {
      // Somebody else's, perhaps.
    }
  }
}

}  // namespace

bool TryLock(int fd) {
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) ThrowErrno("lock", "an open file or directory");
  }
  return true;
}

void Lock(const Context& ctx, int fd) {
  // flock(2) has no time-out, and a blocking one would not see a cancellation.
  while (!TryLock(fd)) {
    ctx.Check();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

Stage::Stage(const std::filesystem::path& parent) : parent_(OpenDirectory(parent)) {
  RemoveStaleStages(parent_.get(), parent);
  // Between making a stage and locking it, another process may take it for a stale one.
  do {
    const std::string name = std::string(kPrefix) + RandomSuffix();
    if (mkdirat(parent_.get(), name.c_str(), 0777) != 0) {
      ThrowErrno("create a directory in", parent.native());
    }
    path_ = parent / name;
    fd_ = OpenEntryAt(parent_.get(), name).fd;
  } while (!fd_ || !TryLock(fd_.get()) ||
           !IsSameFile(fd_.get(), parent_.get(), path_.filename().native()));
}

Stage::~Stage() {
  if (!discard_) return;
  try {
    RemoveTree(path_);
  } catch (const Error&) {
    // The next stage made here sweeps it.
  }
}

bool Stage::Rename(const std::string& name, unsigned flags) {
  return renameat2(parent_.get(), path_.filename().c_str(), parent_.get(), name.c_str(), flags) ==
         0;
}

void Stage::SyncRenamed(const std::string& name, unsigned flags) {
  try {
    Sync(parent_.get());
  } catch (const Error&) {
    // Nobody knows what a crash would leave now, so what is reported as failed must be undone.
    if (renameat2(parent_.get(), name.c_str(), parent_.get(), path_.filename().c_str(), flags) ==
        0) {
      discard_ = true;
    }
    throw;
  }
}

bool Stage::Publish(const std::string& name) {
  Sync(fd_.get());
  if (!Rename(name, RENAME_NOREPLACE)) {
    if (errno == EEXIST) return false;
    ThrowErrno("rename to", name);
  }
  discard_ = false;
  SyncRenamed(name, RENAME_NOREPLACE);
  return true;
}

bool Stage::PublishOver(const std::string& name,
                        const std::function<bool(const std::filesystem::path& old)>& may_replace) {
  while (!Publish(name)) {
    if (Rename(name, RENAME_EXCHANGE)) {
      // What the stage's name holds now is the old one, for the destructor to remove.
      discard_ = false;
      const bool replace = may_replace(path_);
      if (!replace && !Rename(name, RENAME_EXCHANGE)) ThrowErrno("put back", name);
      discard_ = true;
      if (replace) SyncRenamed(name, RENAME_EXCHANGE);
      return replace;
    }
    if (errno != ENOENT) ThrowErrno("exchange with", name);
  }
  return true;
}

std::optional<std::string> Stage::PublishEntries(const std::vector<std::string>& names) {
  Sync(fd_.get());
  std::vector<std::string> published;
  try {
    for (const std::string& name : names) {
      if (renameat2(fd_.get(), name.c_str(), parent_.get(), name.c_str(), RENAME_NOREPLACE) != 0) {
        if (errno != EEXIST) ThrowErrno("rename to", name);
        TakeBack(published);
        return name;
      }
      published.push_back(name);
    }
    Sync(parent_.get());
  } catch (...) {
    TakeBack(published);
    throw;
  }
  return std::nullopt;
}

void Stage::TakeBack(const std::vector<std::string>& names) noexcept {
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    renameat2(parent_.get(), name->c_str(), fd_.get(), name->c_str(), RENAME_NOREPLACE);
  }
}

bool Stage::PutBack(const std::string& name, const std::string& target, unsigned flags) {
  if (renameat2(parent_.get(), target.c_str(), fd_.get(), name.c_str(), flags) == 0) return true;
  // Rather a stage left behind than somebody's file removed with it.
  discard_ = false;
  return false;
}

void Stage::PublishFile(const std::string& name, const std::string& target) {
  const auto rename_out = [&](unsigned flags) {
    return renameat2(fd_.get(), name.c_str(), parent_.get(), target.c_str(), flags) == 0;
  };
  unsigned flags = RENAME_NOREPLACE;
  while (!rename_out(flags)) {
    // What is there, or is not, may change at any moment. The stage takes along what it gets.
    const bool other_way = errno == (flags == RENAME_NOREPLACE ? EEXIST : ENOENT);
    if (!other_way) ThrowErrno("rename to", target);
    flags = flags == RENAME_NOREPLACE ? RENAME_EXCHANGE : RENAME_NOREPLACE;
  }
  struct stat old;
  if (flags == RENAME_EXCHANGE &&
      (fstatat(fd_.get(), name.c_str(), &old, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(old.st_mode))) {
    PutBack(name, target, flags);
    Throw(ErrorKind::kInvalidArgument, "{} is no regular file, and not replaced", target);
  }
  try {
    Sync(parent_.get());
  } catch (const Error&) {
    PutBack(name, target, flags);  // As in SyncRenamed.
    throw;
  }
}

std::optional<std::filesystem::path> HideDurably(const std::filesystem::path& parent,
                                                 const std::string& name) {
  const UniqueFd dir = TryOpenDirectory(parent);
  if (!dir) return std::nullopt;
  RemoveStaleStages(dir.get(), parent);
  const std::string hidden = std::string(kPrefix) + RandomSuffix();
  if (renameat2(dir.get(), name.c_str(), dir.get(), hidden.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == ENOENT) return std::nullopt;
    ThrowErrno("remove", name);
  }
  Sync(dir.get());
  return parent / hidden;
}

}  // namespace msb::base
