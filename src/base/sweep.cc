// SPDX-License-Identifier: Apache-2.0
//
// Implements SweepStages and AwaitExchange of staging.h.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string>
#include <thread>

#include "src/base/digest.h"
#include "src/base/file_system.h"
#include "src/base/remove_tree.h"
#include "src/base/rename.h"
#include "src/base/staging.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

// A hidden directory that an interrupted call may have left.
struct Hidden {
  std::string name = {};
  std::string_view prefix = {};
  std::string domain = {};  // The LockDomain in its name; empty if there is none.
};

std::optional<Hidden> ParseHidden(const std::string& name) {
  constexpr std::size_t kDomainDigits = 8;
  constexpr std::size_t kSuffixDigits = 16;
  for (const std::string_view prefix : {kStagePrefix, kAsidePrefix, kCopiedPrefix}) {
    if (!name.starts_with(prefix)) continue;
    const std::string_view rest = std::string_view(name).substr(prefix.size());
    const bool has_domain =
        rest.size() == kDomainDigits + 1 + kSuffixDigits && rest[kDomainDigits] == '-';
    return Hidden{name, prefix, std::string(rest.substr(0, has_domain ? kDomainDigits : 0))};
  }
  if (!name.starts_with(kPullPrefix)) return std::nullopt;
  std::string_view rest = std::string_view(name).substr(kPullPrefix.size());
  const std::string_view domain = rest.substr(0, kDomainDigits);
  rest.remove_prefix(domain.size());
  if (!IsHex(domain, kDomainDigits) || !rest.starts_with('-')) return std::nullopt;
  if (!IsHex(rest.substr(1), Digest::kHexDigits)) return std::nullopt;
  return Hidden{name, kPullPrefix, std::string(domain)};
}

// The changes that count for the age of a hidden directory. Renaming a directory, for example, does
// not change its content.
enum class Changes { kAll, kContent };

// Returns the time of the last change of the directory or of anything in it.
std::chrono::nanoseconds LastChange(const Context& ctx, int dir, Changes changes) {
  const auto time_of = [&](const FileStamp& stamp) {
    return changes == Changes::kAll ? std::max(stamp.mtime_ns, stamp.ctime_ns) : stamp.mtime_ns;
  };
  std::int64_t last = time_of(StampOf(dir));
  for (const DirectoryEntry& entry : ListDirectory(dir, ctx)) {
    const Entry child = OpenEntryAt(dir, entry.name);
    if (child.type == EntryType::kDirectory) {
      last = std::max(last, LastChange(ctx, child.fd.get(), changes).count());
    } else if (child.fd) {
      last = std::max(last, time_of(StampOf(child.fd.get())));
    }
  }
  return std::chrono::nanoseconds(last);
}

class Sweeper {
 public:
  Sweeper(const Context& ctx, int parent) : ctx_(ctx), parent_(parent) {}

  // Puts back or deletes one hidden directory, unless a call uses it. Throws kIO.
  void Sweep(const Hidden& hidden) {
    Entry stale = OpenEntryAt(parent_, hidden.name);
    if (stale.type != EntryType::kDirectory || !TryLock(stale.fd.get())) return;
    const LockedFd lock(std::move(stale.fd));
    // It may have been published, or put back, before it was locked.
    if (!IsSameFile(lock.get(), parent_, hidden.name)) return;
    const bool is_moved = hidden.prefix == kAsidePrefix || hidden.prefix == kCopiedPrefix;
    if (is_moved && !MayBeInUse(hidden, lock.get(), kForeignAsideAge)) {
      if (hidden.prefix == kAsidePrefix) PutBack(lock.get());
      if (hidden.prefix == kCopiedPrefix && !ReplaceByCopy(lock.get())) return;
    }
    if (MayBeInUse(hidden, lock.get(), kForeignStageAge)) {
      // If its content was put back it is empty, and can be removed all the same.
      if (is_moved) unlinkat(parent_, hidden.name.c_str(), AT_REMOVEDIR);
      return;
    }
    if (!RemoveContents(ctx_, lock.get())) return;
    if (unlinkat(parent_, hidden.name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
      ThrowErrnoAt("delete", parent_, hidden.name);
    }
  }

 private:
  // Returns true if the directory may be in use by a process whose lock is not visible here: it has
  // changed less than age ago. Also returns true for a stage with a key that may be needed by the
  // next call with this key.
  bool MayBeInUse(const Hidden& hidden, int fd, std::chrono::seconds age) {
    if (hidden.prefix == kPullPrefix) return IsRecent(fd, kKeptStageAge, Changes::kContent);
    if (!IsLockOfProcess(fd)) {
      if (hidden.domain.empty()) return false;
      if (domain_.empty()) domain_ = LockDomain(parent_);
      if (hidden.domain == domain_) return false;
    }
    return IsRecent(fd, age, Changes::kAll);
  }

  bool IsRecent(int fd, std::chrono::seconds age, Changes changes) const {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return now - LastChange(ctx_, fd, changes) < age;
  }

  // Moves a directory that was moved aside back to its name, unless the name is taken.
  void PutBack(int aside) const {
    for (const DirectoryEntry& entry : ListDirectory(aside)) {
      if (RenameNew(aside, entry.name, parent_, entry.name)) {
        Sync(parent_);
      } else if (errno != EEXIST) {
        ThrowErrnoAt("rename", aside, entry.name);
      }
    }
  }

  // Replaces the rest of a directory with its copy. Returns false if that directory is in use,
  // or if the Context ends.
  bool ReplaceByCopy(int copied) const {
    for (const DirectoryEntry& entry : ListDirectory(copied)) {
      Entry left = OpenEntryAt(parent_, entry.name);
      LockedFd lock;
      if (left.type == EntryType::kDirectory) {
        if (!TryLock(left.fd.get())) return false;
        lock = LockedFd(std::move(left.fd));
        if (!RemoveContents(ctx_, lock.get())) return false;
      }
      if (renameat(copied, entry.name.c_str(), parent_, entry.name.c_str()) != 0) {
        ThrowErrnoAt("rename", copied, entry.name);
      }
      Sync(parent_);
    }
    return true;
  }

  const Context& ctx_;
  const int parent_;
  std::string domain_;  // LockDomain of parent_; empty: not determined yet.
};

}  // namespace

void SweepStages(const Context& given, const std::filesystem::path& dir,
                 const std::function<void(std::string_view message)>& log) {
  const auto left = given.TimeLeft();
  const Context ctx = left ? given.WithTimeout(*left / 4) : given;
  UniqueFd parent;
  std::vector<DirectoryEntry> entries;
  try {
    parent = TryOpenDirectory(dir);
    if (parent) entries = ListDirectory(parent.get(), ctx);
  } catch (const Error&) {
    return;  // The caller reports problems with dir itself.
  }
  Sweeper sweeper(ctx, parent.get());
  for (const DirectoryEntry& entry : entries) {
    const auto hidden = ParseHidden(entry.name);
    if (entry.type != EntryType::kDirectory || !hidden) continue;
    if (ctx.Done()) return;
    std::string problem;
    try {
      sweeper.Sweep(*hidden);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kCancelled) problem = e.what();
    }
    if (problem.empty() || !log) continue;
    log(fmt::format("cannot delete {}, left by an interrupted call: {}; the next call tries again",
                    (dir / entry.name).native(), problem));
  }
}

bool AwaitExchange(const std::filesystem::path& path) noexcept {
  constexpr int kAttempts = 500;
  constexpr std::chrono::milliseconds kPause{2};
  try {
    const UniqueFd parent = TryOpenDirectory(path.parent_path());
    const std::string name = path.filename();
    for (int attempt = 0; parent && attempt < kAttempts; ++attempt) {
      bool is_aside = false;
      for (const DirectoryEntry& entry : ListDirectory(parent.get())) {
        const auto hidden = ParseHidden(entry.name);
        if (!hidden || hidden->prefix != kAsidePrefix) continue;
        const Entry aside = OpenEntryAt(parent.get(), entry.name);
        if (!aside.fd || TypeAt(aside.fd.get(), name) == EntryType::kAbsent) continue;
        is_aside = true;
        Sweeper(Context::Background(), parent.get()).Sweep(*hidden);
      }
      if (TypeAt(parent.get(), name) != EntryType::kAbsent) return true;
      if (!is_aside) return false;
      std::this_thread::sleep_for(kPause);
    }
  } catch (...) {
    // The caller reports that path is absent.
  }
  return false;
}

}  // namespace msb::base
