// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/run_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "src/base/fork.h"
#include "src/base/owned_descriptor.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/writers.h"

namespace msb::vmm {
namespace {

// Not all of these are in the kernel's headers.
constexpr std::uint32_t kBcachefs = 0xca451a4e;
constexpr std::uint32_t kRamfs = 0x858458f6;
constexpr std::uint32_t kXfs = 0x58465342;
constexpr std::uint32_t kZfs = 0x2fc12fc1;

// Returns true for file systems whose locks are visible through every mount, in any container. On
// others, such as FUSE, a lock may be visible through one mount only.
bool SharesLocks(int fd) {
  constexpr std::array<std::uint32_t, 9> kTypes = {EXT4_SUPER_MAGIC,
                                                   BTRFS_SUPER_MAGIC,
                                                   F2FS_SUPER_MAGIC,
                                                   OVERLAYFS_SUPER_MAGIC,
                                                   TMPFS_MAGIC,
                                                   kBcachefs,
                                                   kRamfs,
                                                   kXfs,
                                                   kZfs};
  struct statfs file_system;
  if (fstatfs(fd, &file_system) != 0) return false;
  const auto type = static_cast<std::uint32_t>(file_system.f_type);
  return std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
}

struct flock WholeFile() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
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
  return {process, base::HostId(), file, is_shared};
}

RunLock MakeRunLock(int dir) {
  const std::string file = fmt::format("run-{}.lock", base::RandomSuffix());
  base::UniqueFd fd = base::CreateFileAt(dir, file, 0666);
  base::NoteOwnedByProcess(fd.get());
  const struct flock lock = WholeFile();
  if (fcntl(fd.get(), F_OFD_SETLK, &lock) == 0) {
    const bool is_shared = SharesLocks(fd.get());
    return {std::move(fd), file, is_shared};
  }
  const int error = errno;
  unlinkat(dir, file.c_str(), 0);
  if (error == ENOLCK || error == EOPNOTSUPP || error == EINVAL || error == ENOSYS) return {};
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

void ReleaseRunLock(const std::string& file) {
  HeldLocks& held = Held();
  const base::ForkSafeSection section;
  const std::lock_guard guard(held.mutex);
  const auto found = held.locks.find(file);
  if (found == held.locks.end()) return;
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
  if (runner.boot_id != base::BootId()) {
    return runner.host == base::HostId() ? RunState::kEnded : RunState::kMayRun;
  }
  if (is_held.has_value() && runner.lock_is_shared && SharesLocks(dir)) return RunState::kEnded;
  if (!runner.IsVisible()) return RunState::kMayRun;
  return StateOfVisible(runner);
}

std::string Describe(const Runner& runner) {
  if (runner.boot_id != base::BootId() && !runner.host.empty() && runner.host != base::HostId()) {
    return fmt::format("process {} on host '{}'", runner.pid,
                       base::Quoted(runner.host.substr(0, runner.host.find('/'))));
  }
  if (!runner.IsVisible()) {
    return fmt::format("process {} in another container (PID namespace)", runner.pid);
  }
  return fmt::format("process {}", runner.pid);
}

}  // namespace msb::vmm
