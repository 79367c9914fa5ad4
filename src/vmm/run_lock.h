// SPDX-License-Identifier: Apache-2.0
//
// Decides whether a sandbox runs, by a lock that its owner holds. The owner is the VM or, without a
// VM, the process that booted the sandbox.
//
// Each boot creates a file of its own in the sandbox's directory, "run-HEX.lock", and locks it with
// an open-file-description lock (fcntl(2), F_OFD_SETLK). The owner has the file open for as long as
// it runs, and the kernel releases the lock when the owner ends. Therefore the answer does not
// depend on pids, which identify other processes in another container or on another host.
// docs/architecture.md describes how a record without a lock is judged.

#ifndef MSB_SRC_VMM_RUN_LOCK_H_
#define MSB_SRC_VMM_RUN_LOCK_H_

#include <filesystem>
#include <string>

#include "src/base/file.h"
#include "src/base/process.h"

namespace msb::vmm {

// A Runner represents the owner of a running sandbox, as recorded in sandbox.json.
struct Runner : base::ProcessIdentity {
  std::string host = {};       // base::HostId() of its host. Empty in records of earlier versions.
  std::string lock_file = {};  // In the sandbox's directory. Empty in such records.
  // Where the owner sees the lock: "local", or base::LockDomain() on an overlayfs. Where another
  // process sees the same, the owner runs only if the lock is held. Empty if it is not known, or if
  // the file system may lose locks.
  std::string lock_domain = {};
};

// A RunLock represents a lock that is held until the last copy of its descriptor is closed.
struct RunLock {
  base::UniqueFd fd = {};
  std::string file = {};
  std::string domain = {};  // As Runner::lock_domain.

  // Returns the Runner for a process that holds the lock.
  Runner HeldBy(const base::ProcessIdentity& process) const;
};

// Creates a lock file in dir and locks it. A process that is forked from this one drops its copy of
// the descriptor, but a program to which the descriptor is passed keeps it. If the file system has
// no locks, the file is only open, which still shows which directory a process belongs to.
RunLock MakeRunLock(int dir);

// Keeps the lock until this process ends, ReleaseRunLock is called, or a later call finds that the
// lock file was deleted.
void HoldRunLock(RunLock lock);
// Releases a lock that HoldRunLock keeps, whose file is in dir. Has no effect if this process does
// not hold it; it may hold that of the directory from which dir was copied.
void ReleaseRunLock(int dir, const std::string& file);

// Removes all run lock files from a sandbox's directory, which is open as dir. Call when no process
// needs them any more. The caller must hold the directory's lock. On failure, files are left
// behind.
void RemoveRunLocks(int dir, const std::filesystem::path& path) noexcept;

enum class RunState {
  kRuns,
  // The owner cannot be seen from here, but may run in another container or on another host.
  kMayRun,
  kEnded,
};

// Returns whether the owner of a sandbox runs. dir is the sandbox's directory, and upper the name
// of its disk. If dir was copied (with files of its own, not by hard links) from the directory of
// another sandbox, whose owner the record names, this is kEnded as far as that can be determined.
RunState StateOf(const Runner& runner, int dir, const std::string& upper);

// Returns true if the process of the record is certainly the owner of the sandbox in dir, if that
// has an owner, or if the record is of an earlier release, which has no lock. It must be visible.
bool IsOwner(const Runner& runner, int dir);

// Returns a description of the process and where it runs, for messages: "process 12", "process 12
// in another container (PID namespace)" or "process 12 on host 'b'".
std::string Describe(const Runner& runner);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_RUN_LOCK_H_
