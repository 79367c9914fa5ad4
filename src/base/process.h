// SPDX-License-Identifier: Apache-2.0
//
// Identifies processes. A pid alone does not identify one: the kernel reuses pids, and each PID
// namespace and each host has its own. All functions throw kIO if no descriptor is free for reading
// a file in /proc.

#ifndef MSB_SRC_BASE_PROCESS_H_
#define MSB_SRC_BASE_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/context.h"
#include "src/base/file.h"

namespace msb::base {

// Returns the kernel's identifier of the current boot (random(4)), or an empty string if it cannot
// be read.
std::string BootId();

// Returns a name for this host that distinguishes it from other hosts that may share a file system:
// its host name and machine-id(5), with a '/' between them.
std::string HostId();
// Returns true if id, a result of HostId, contains a machine-id. Without one, as in many
// containers, hosts of the same host name have the same id.
bool HasMachineId(std::string_view id);

// Returns a number for the PID namespace of this process, or 0 if it cannot be read. Until the next
// boot, no other namespace has this number, unless this namespace ends.
std::uint64_t PidNamespace();

// A ProcessIdentity identifies one process, and no later process with the same pid.
struct ProcessIdentity {
  pid_t pid = 0;
  // When the process started, in clock ticks after boot: field 22 of /proc/PID/stat (proc(5)). 0 if
  // the process runs, but that file cannot be read.
  std::uint64_t start_ticks = 0;
  std::string program = {};  // Name of the program, cut to 15 bytes; empty if start_ticks is 0.
  std::string boot_id = {};  // BootId() of the boot that start_ticks counts from.
  std::uint64_t pid_namespace = 0;  // PidNamespace() that pid belongs to; 0 if unknown.

  // Returns the identity of this process. Throws kIO if /proc cannot be read.
  static ProcessIdentity Self();
  // Returns the identity of a process, or nullopt if no such process runs. A zombie, which has
  // ended but was not waited for, does not run.
  static std::optional<ProcessIdentity> Of(pid_t pid);

  // Returns true if, as far as is known, pid refers to this process in the caller's PID namespace
  // too.
  bool IsVisible() const;
  // Returns false only if the process has certainly ended. The process must be visible.
  bool IsAlive() const;
  // Returns the start time according to the current setting of the clock. The result changes if the
  // clock is set after the process has started.
  std::chrono::system_clock::time_point StartTime() const;
};

// Returns true if the process runs and was started with entry, "NAME=value", in its environment.
// Also returns false if the environment cannot be read.
bool HasInEnvironment(const ProcessIdentity& process, std::string_view entry);

// Returns descriptors (O_PATH) of the files with this name that a process has open, in any
// directory. Leaves out those that this process may not see. Returns nothing if the process has
// ended.
std::vector<UniqueFd> OpenFilesOf(const ProcessIdentity& process, std::string_view name);

// A ProcessHandle refers to a process by a descriptor (pidfd_open(2)), so that a later process with
// the same pid is never mistaken for it. Where the kernel (before Linux 5.3) or a seccomp profile
// has no such descriptors, it compares identities instead.
class ProcessHandle {
 public:
  // Returns nullopt if the process has ended, is not visible, or has no start_ticks. Throws kIO if
  // it cannot be determined which process has the pid.
  static std::optional<ProcessHandle> Open(const ProcessIdentity& identity);

  // Waits until the process has ended. Returns false if ctx is done before that. Never throws
  // kCancelled.
  bool AwaitEnd(const Context& ctx) const;
  // Sends SIGKILL. Has no effect if the process has ended. Throws kIO if it belongs to another
  // user.
  void Kill() const;
  // Reaps the process if it has ended and this process is its parent. An orphan becomes the child
  // of the init process of its container, and stays a zombie if the init process does not reap it.
  // No other code may wait for the process.
  void Reap() const;

 private:
  ProcessHandle(const ProcessIdentity& identity, UniqueFd fd)
      : identity_(identity), fd_(std::move(fd)) {}

  ProcessIdentity identity_;
  UniqueFd fd_;  // Empty if there are no such descriptors.
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_PROCESS_H_
