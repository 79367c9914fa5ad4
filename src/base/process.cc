#include "src/base/process.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>

#include "src/base/poll.h"
#include "src/base/throw.h"

namespace msb::base {

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

ProcessIdentity ProcessIdentity::Self() {
  const auto self = Of(getpid());
  if (!self || self->start_ticks == 0) Throw(ErrorKind::kIO, "cannot read /proc/self/stat");
  return *self;
}

std::optional<ProcessIdentity> ProcessIdentity::Of(pid_t pid) {
  if (pid <= 0 || (kill(pid, 0) != 0 && errno == ESRCH)) return std::nullopt;
  static const std::string boot_id = BootId();
  ProcessIdentity identity{.pid = pid, .boot_id = boot_id};
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  // The second field is the program's name in parentheses, and may contain any character but NUL.
  if (!std::getline(file, line, '\0')) return identity;
  const std::size_t name_start = line.find('(');
  const std::size_t name_end = line.rfind(')');
  if (name_start == std::string::npos || name_end == std::string::npos) return identity;
  std::istringstream fields(line.substr(name_end + 1));
  char state = 0;
  std::string skipped;
  std::uint64_t threads = 0;
  std::uint64_t start_ticks = 0;
  fields >> state;
  for (int field = 4; field < 20; ++field) fields >> skipped;
  fields >> threads >> skipped >> start_ticks;
  if (!fields) return identity;
  // The state is the first thread's. As long as another one is there, files may be written to.
  if ((state == 'Z' || state == 'X') && threads <= 1) return std::nullopt;
  identity.start_ticks = start_ticks;
  identity.program = line.substr(name_start + 1, name_end - name_start - 1);
  return identity;
}

bool ProcessIdentity::IsAlive() const {
  const auto now = Of(pid);
  return now && now->boot_id == boot_id &&
         (now->start_ticks == start_ticks || now->start_ticks == 0);
}

std::chrono::system_clock::time_point ProcessIdentity::StartTime() const {
  timespec since_boot{};
  clock_gettime(CLOCK_BOOTTIME, &since_boot);
  const auto uptime =
      std::chrono::seconds(since_boot.tv_sec) + std::chrono::nanoseconds(since_boot.tv_nsec);
  const auto per_second = static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK));
  const auto start = std::chrono::milliseconds(start_ticks * 1000 / per_second);
  return std::chrono::system_clock::now() - uptime + start;
}

bool HasInEnvironment(const ProcessIdentity& process, std::string_view entry) {
  std::ifstream file(fmt::format("/proc/{}/environ", process.pid));
  std::string variable;
  bool found = false;
  while (!found && std::getline(file, variable, '\0')) found = variable == entry;
  // If it is still the process, that was its own.
  return found && process.IsAlive();
}

std::optional<ProcessHandle> ProcessHandle::Open(const ProcessIdentity& identity) {
  if (identity.pid <= 0) return std::nullopt;
  // By number: the C libraries that name these calls are newer than the kernels that have them.
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, identity.pid, 0)));
  if (!fd) {
    // EINVAL, ENOENT: the pid is now that of a thread.
    if (errno == ESRCH || errno == EINVAL || errno == ENOENT) return std::nullopt;
    ThrowErrno("hold process", std::to_string(identity.pid));
  }
  // If the process runs now, its pid was its own when the descriptor was opened.
  const auto now = ProcessIdentity::Of(identity.pid);
  if (!now) return std::nullopt;
  if (now->start_ticks == 0) {
    Throw(ErrorKind::kIO, "cannot tell which process {} is: /proc/{}/stat cannot be read",
          identity.pid, identity.pid);
  }
  if (now->start_ticks != identity.start_ticks || now->boot_id != identity.boot_id) {
    return std::nullopt;
  }
  return ProcessHandle(std::move(fd));
}

bool ProcessHandle::AwaitEnd(const Context& ctx) const {
  for (;;) {
    if (PollBriefly(ctx, fd_.get(), POLLIN)) return true;
    if (ctx.Done()) return false;
  }
}

void ProcessHandle::Kill() const {
  if (syscall(SYS_pidfd_send_signal, fd_.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH) {
    ThrowErrno("kill", "a process");
  }
}

void ProcessHandle::Reap() const {
  constexpr auto kPidFd =
      static_cast<idtype_t>(3);  // P_PIDFD, which is newer than some C libraries.
  siginfo_t ignored{};
  // ECHILD: it is somebody else's to wait for.
  static_cast<void>(waitid(kPidFd, static_cast<id_t>(fd_.get()), &ignored, WEXITED | WNOHANG));
}

}  // namespace msb::base
