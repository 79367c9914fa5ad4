// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "src/base/file_system.h"
#include "src/base/fork.h"
#include "src/base/owned_descriptor.h"
#include "src/base/rename.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/writers.h"

namespace msb::vmm {
namespace {

// Returns true for file systems whose locks are held as long as the file is open. Others, such as
// NFS, may lose them, for example when a server is restarted.
bool KeepsLocks(int fd) { return base::IsLocalFileSystem(fd) || base::IsOverlayFileSystem(fd); }

// The lock_domain of all local file systems.
constexpr std::string_view kLocal = "local";

// Returns Runner::lock_domain for a sandbox in this directory. A local file system is seen directly
// by all processes, but an overlayfs has locks of its own, which its layers do not have.
std::string DomainOf(int dir) {
  if (base::IsLocalFileSystem(dir)) return std::string(kLocal);
  return base::IsOverlayFileSystem(dir) ? base::LockDomain(dir) : "";
}

struct flock WholeFile() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

// Returns true if the runner's host is certainly this one.
bool IsThisHost(const Runner& runner) {
  return runner.host == base::HostId() && base::HasMachineId(runner.host);
}

// Returns whether a process holds the lock, or nullopt if that cannot be determined.
std::optional<bool> IsHeld(int dir, const std::string& file) {
  try {
    const base::Entry entry = base::OpenEntryAt(dir, file);
    if (entry.type == base::EntryType::kAbsent) return false;
    struct flock lock = WholeFile();
    if (!entry.fd || fcntl(entry.fd.get(), F_OFD_GETLK, &lock) != 0) return std::nullopt;
    return lock.l_type != F_UNLCK;
  } catch (const Error&) {
    return std::nullopt;  // For example, the file is another user's.
  }
}

bool IsOpenForWriting(int dir, const std::string& file) {
  try {
    const base::Entry entry = base::OpenEntryAt(dir, file);
    return entry.type == base::EntryType::kRegularFile &&
           base::HasWriter(entry.fd.get()).value_or(false);
  } catch (const Error&) {
    return false;
  }
}

// Returns the state of a process that this one can see. If its start time was not recorded, the
// process may be another one of the same number.
RunState StateOfVisible(const Runner& runner) {
  if (!runner.IsAlive()) return RunState::kEnded;
  return runner.start_ticks == 0 ? RunState::kMayRun : RunState::kRuns;
}

enum class Ownership { kOwn, kOther, kUnknown };

// Returns whether file, which the owner has open, is the lock file own. A file has the same number
// in an overlayfs as in its layers, except for bits that the kernel adds to the upper half. On
// other file systems, one file may have several numbers.
Ownership Compare(int own, int file) {
  const base::FileStamp ours = base::StampOf(own);
  const base::FileStamp theirs = base::StampOf(file);
  if (ours.device == theirs.device) {
    return ours.inode == theirs.inode ? Ownership::kOwn : Ownership::kOther;
  }
  const bool is_same_number =
      static_cast<std::uint32_t>(ours.inode) == static_cast<std::uint32_t>(theirs.inode);
  const bool is_other = KeepsLocks(own) && KeepsLocks(file) && !is_same_number;
  return is_other ? Ownership::kOther : Ownership::kUnknown;
}

// Returns whether the process has the lock file in this directory open, or one of the same name in
// another directory, from which this one was copied.
Ownership OwnershipOf(const Runner& runner, int dir) {
  if (runner.lock_file.empty()) return Ownership::kUnknown;
  try {
    const auto files =
        base::OpenFilesOf(runner, runner.lock_file);  // First: it may be this process.
    const base::Entry own = base::OpenEntryAt(dir, runner.lock_file);
    if (!own.fd) return Ownership::kUnknown;
    Ownership result = Ownership::kUnknown;
    for (const base::UniqueFd& file : files) {
      result = Compare(own.fd.get(), file.get());
      if (result != Ownership::kOther) break;
    }
    return result;
  } catch (const Error&) {
    return Ownership::kUnknown;  // For example, the file is another user's.
  }
}

// Returns the state of a process that an earlier release recorded, without lock, host and PID
// namespace. A disk that is open for writing means that the sandbox may run.
RunState StateOfEarlier(const Runner& runner, int dir, const std::string& upper) {
  if (runner.boot_id == base::BootId()) {
    const RunState state = StateOfVisible(runner);
    if (state != RunState::kEnded) return state;
  }
  return IsOpenForWriting(dir, upper) ? RunState::kMayRun : RunState::kEnded;
}

struct HeldLock {
  base::UniqueFd fd;
  bool links_are_counted = false;  // Some FUSE file systems always report 0 links.
};

// The locks that this process holds, by the name of the file, which is random.
struct HeldLocks {
  std::mutex mutex;  // Locked in a ForkSafeSection only.
  std::map<std::string, HeldLock> locks;
};

HeldLocks& Held() {
  static constinit base::Lazy<HeldLocks> held;
  return held.Get();
}

bool HasLinks(const base::UniqueFd& fd) {
  struct stat status;
  return fstat(fd.get(), &status) == 0 && status.st_nlink > 0;
}

}  // namespace

Runner RunLock::HeldBy(const base::ProcessIdentity& process) const {
  return {process, base::HostId(), file, domain};
}

RunLock MakeRunLock(int dir) {
  const std::string file = fmt::format("run-{}.lock", base::RandomSuffix());
  base::UniqueFd fd = base::CreateFileAt(dir, file, 0666);
  base::NoteOwnedByProcess(fd.get());
  const struct flock lock = WholeFile();
  if (fcntl(fd.get(), F_OFD_SETLK, &lock) == 0) {
    return {std::move(fd), file, DomainOf(dir)};
  }
  const int error = errno;
  if (error == ENOLCK || base::IsUnsupported(error)) return {std::move(fd), file, ""};
  unlinkat(dir, file.c_str(), 0);
  base::ThrowErrnoAt("lock", dir, file, error);
}

void HoldRunLock(RunLock lock) {
  if (!lock.fd) return;
  HeldLocks& held = Held();
  const base::ForkSafeSection section;
  const std::lock_guard guard(held.mutex);
  // Another process may have stopped, replaced or removed a sandbox that this process booted, and
  // deleted its lock file. Nothing asks for that lock any more.
  std::erase_if(held.locks, [](const auto& entry) {
    return entry.second.links_are_counted && !HasLinks(entry.second.fd);
  });
  const bool links_are_counted = HasLinks(lock.fd);
  held.locks.insert_or_assign(lock.file, HeldLock{std::move(lock.fd), links_are_counted});
}

void ReleaseRunLock(int dir, const std::string& file) {
  HeldLocks& held = Held();
  const base::ForkSafeSection section;
  const std::lock_guard guard(held.mutex);
  const auto found = held.locks.find(file);
  if (found == held.locks.end() || !base::IsSameFile(found->second.fd.get(), dir, file)) return;
  // Closing does not release the lock if a process that was just forked still has a copy.
  struct flock lock = WholeFile();
  lock.l_type = F_UNLCK;
  static_cast<void>(fcntl(found->second.fd.get(), F_OFD_SETLK, &lock));
  held.locks.erase(found);
}

void RemoveRunLocks(int dir, const std::filesystem::path& path) noexcept {
  try {
    for (const base::DirectoryEntry& entry : base::ListDirectory(dir)) {
      if (entry.type == base::EntryType::kRegularFile && entry.name.starts_with("run-") &&
          entry.name.ends_with(".lock")) {
        base::RemoveFile(path / entry.name);
      }
    }
  } catch (const std::exception&) {
    // Lock files that are left have no effect.
  }
}

RunState StateOf(const Runner& runner, int dir, const std::string& upper) {
  std::optional<bool> is_held;
  if (!runner.lock_file.empty()) is_held = IsHeld(dir, runner.lock_file);
  if (is_held.value_or(false)) return RunState::kRuns;
  if (runner.host.empty()) return StateOfEarlier(runner, dir, upper);
  const bool is_free =
      is_held.has_value() && !runner.lock_domain.empty() && runner.lock_domain == DomainOf(dir);
  // Only one system at a time mounts a local file system, so its locks decide even if that system
  // was started again under another name.
  if (is_free && runner.lock_domain == kLocal) return RunState::kEnded;
  if (runner.boot_id != base::BootId()) {
    return IsThisHost(runner) ? RunState::kEnded : RunState::kMayRun;
  }
  if (is_free) return RunState::kEnded;
  if (!runner.IsVisible()) return RunState::kMayRun;
  const RunState state = StateOfVisible(runner);
  if (state == RunState::kEnded || OwnershipOf(runner, dir) != Ownership::kOther) return state;
  return RunState::kEnded;
}

bool IsOwner(const Runner& runner, int dir) {
  if (runner.lock_file.empty() || IsHeld(dir, runner.lock_file).value_or(false)) return true;
  return OwnershipOf(runner, dir) == Ownership::kOwn;
}

std::string Describe(const Runner& runner) {
  if (runner.boot_id != base::BootId() && !runner.host.empty() && !IsThisHost(runner)) {
    return fmt::format("process {} on host '{}'", runner.pid,
                       base::Quoted(runner.host.substr(0, runner.host.find('/'))));
  }
  if (!runner.IsVisible()) {
    return fmt::format("process {} in another container (PID namespace)", runner.pid);
  }
  return fmt::format("process {}", runner.pid);
}

}  // namespace msb::vmm
