// Which process is which. A pid alone does not tell: the kernel gives it out again.

#ifndef MSB_SRC_BASE_PROCESS_H_
#define MSB_SRC_BASE_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "msb/context.h"
#include "src/base/file.h"

namespace msb::base {

// The kernel's name for the time since it booted (random(4)); empty if it cannot be read.
std::string BootId();

struct ProcessIdentity {
  pid_t pid = 0;
  // When it started, in clock ticks after boot: field 22 of /proc/PID/stat (proc(5)). 0: it runs,
  // but that file cannot be read.
  std::uint64_t start_ticks = 0;
  std::string program = {};  // Its name, cut to 15 bytes; empty if start_ticks is 0.
  std::string boot_id = {};  // Of the boot that the ticks count from: BootId().

  static ProcessIdentity Self();
  // Nothing if no such process runs; one that has ended but was not waited for does not run.
  static std::optional<ProcessIdentity> Of(pid_t pid);

  // False only if it is certain that the process has ended.
  bool IsAlive() const;
  // By today's clock: one that was set since the process started moves this.
  std::chrono::system_clock::time_point StartTime() const;
};

// True if the process runs and was started with this entry, "NAME=value", in its environment; false
// also if that cannot be read.
bool HasInEnvironment(const ProcessIdentity& process, std::string_view entry);

// A process held by a descriptor (pidfd_open(2)), so that a later one of the same pid is never
// taken for it.
class ProcessHandle {
 public:
  // Nothing if the process has ended.
  static std::optional<ProcessHandle> Open(const ProcessIdentity& identity);

  // Waits until it has ended; false if it has not when ctx is done. Never throws kCancelled.
  bool AwaitEnd(const Context& ctx) const;
  // SIGKILL; no error if it has ended.
  void Kill() const;
  // Of a process that has ended and that nobody else waits for, takes the exit status if this
  // process became its parent: as the init of a container does, where it would stay a zombie.
  void Reap() const;

 private:
  explicit ProcessHandle(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_PROCESS_H_
