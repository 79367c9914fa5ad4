// SPDX-License-Identifier: Apache-2.0

#include "src/base/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <sstream>
#include <string>

#include "src/base/descriptor.h"
#include "src/base/fork.h"
#include "src/base/poll.h"
#include "src/base/retry.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

// Returns the content of a small file, or nothing if it is absent or must not be read. A file in
// /proc has no size, and its content is generated when it is read; the content that one read(2)
// returns is consistent. Throws kIO if no descriptor or memory is free: a process whose file cannot
// be read for that reason must not be taken for one that has ended.
std::optional<std::string> ReadSmallFile(const std::string& path) {
  const UniqueFd fd = OpenAt(AT_FDCWD, path.c_str(), O_RDONLY);
  if (!fd) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) ThrowErrno("read", path);
    return std::nullopt;
  }
  std::string content(4096, '\0');
  for (std::size_t length = 0;;) {
    const ssize_t n =
        Retry([&] { return read(fd.get(), content.data() + length, content.size() - length); });
    if (n < 0) return std::nullopt;  // The process has ended meanwhile.
    length += static_cast<std::size_t>(n);
    if (n == 0) {
      content.resize(length);
      return content;
    }
    if (length == content.size()) content.resize(2 * length);
  }
}

}  // namespace

std::string BootId() {
  std::string id = ReadSmallFile("/proc/sys/kernel/random/boot_id").value_or("");
  return id.substr(0, id.find('\n'));
}

std::string HostId() {
  std::array<char, 256> name{};
  // A name that is too long is truncated, and need not end in a NUL.
  if (gethostname(name.data(), name.size() - 1) != 0) name[0] = '\0';
  const std::string machine = ReadSmallFile("/etc/machine-id").value_or("");
  return fmt::format("{}/{}", name.data(), machine.substr(0, machine.find('\n')));
}

bool HasMachineId(std::string_view id) { return !id.empty() && !id.ends_with('/'); }

std::uint64_t PidNamespace() {
  struct stat st;
  return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

ProcessIdentity ProcessIdentity::Self() {
  const auto self = Of(getpid());
  if (!self || self->start_ticks == 0) {
    Throw(ErrorKind::kIO, "cannot read /proc/self/stat: mount /proc (mount -t proc proc /proc)");
  }
  return *self;
}

std::optional<ProcessIdentity> ProcessIdentity::Of(pid_t pid) {
  if (pid <= 0 || (kill(pid, 0) != 0 && errno == ESRCH)) return std::nullopt;
  static constinit Lazy<std::string> boot_id;
  ProcessIdentity identity{
      .pid = pid, .boot_id = boot_id.Get(BootId), .pid_namespace = PidNamespace()};
  // The second field is the program's name in parentheses, and may contain any character but NUL.
  const std::string line = ReadSmallFile(fmt::format("/proc/{}/stat", pid)).value_or("");
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
  // This is the state of the first thread. While other threads run, the process may write to files.
  if ((state == 'Z' || state == 'X') && threads <= 1) return std::nullopt;
  identity.start_ticks = start_ticks;
  identity.program = line.substr(name_start + 1, name_end - name_start - 1);
  return identity;
}

bool ProcessIdentity::IsVisible() const {
  return boot_id == BootId() && (pid_namespace == 0 || pid_namespace == PidNamespace());
}

bool ProcessIdentity::IsAlive() const {
  const auto now = Of(pid);
  if (!now || now->boot_id != boot_id) return false;
  return now->start_ticks == start_ticks || now->start_ticks == 0 || start_ticks == 0;
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
  std::istringstream file(ReadSmallFile(fmt::format("/proc/{}/environ", process.pid)).value_or(""));
  std::string variable;
  bool found = false;
  while (!found && std::getline(file, variable, '\0')) found = variable == entry;
  // If the process is still alive, the environment was its own and not that of a later process.
  return found && process.IsAlive();
}

std::vector<UniqueFd> OpenFilesOf(const ProcessIdentity& process, std::string_view name) {
  const UniqueFd dir =
      OpenAt(AT_FDCWD, fmt::format("/proc/{}/fd", process.pid).c_str(), O_RDONLY | O_DIRECTORY);
  if (!dir) return {};
  std::vector<UniqueFd> found;
  for (const DirectoryEntry& entry : ListDirectory(dir.get())) {
    UniqueFd file = OpenAt(dir.get(), entry.name.c_str(), O_PATH);
    if (!file) continue;
    // The name of a deleted file is followed by " (deleted)".
    const std::string path = PathOf(file.get());
    if (path.substr(path.rfind('/') + 1).starts_with(name)) found.push_back(std::move(file));
  }
  if (!process.IsAlive()) found.clear();
  return found;
}

std::optional<ProcessHandle> ProcessHandle::Open(const ProcessIdentity& identity) {
  if (identity.pid <= 0 || !identity.IsVisible()) return std::nullopt;
  UniqueFd fd = OpenProcess(identity.pid);
  if (!fd) {
    // EINVAL, ENOENT: the pid is now the id of a thread.
    if (errno == ESRCH || errno == EINVAL || errno == ENOENT) return std::nullopt;
    if (!LacksProcessDescriptors(errno))
      ThrowErrno("open a pidfd for", fmt::format("/proc/{}", identity.pid));
  }
  // If the process still runs now, the descriptor was opened for it and not for a later process.
  const auto now = ProcessIdentity::Of(identity.pid);
  if (!now) return std::nullopt;
  if (now->start_ticks == 0) {
    Throw(ErrorKind::kIO,
          "cannot identify process {}: /proc/{}/stat cannot be read; mount /proc without hidepid, "
          "or run as the user of that process",
          identity.pid, identity.pid);
  }
  if (now->start_ticks != identity.start_ticks || now->boot_id != identity.boot_id) {
    return std::nullopt;
  }
  return ProcessHandle(identity, std::move(fd));
}

bool ProcessHandle::AwaitEnd(const Context& ctx) const {
  for (;;) {
    if (!fd_ && !identity_.IsAlive()) return true;
    if (PollBriefly(ctx, fd_.get(), POLLIN)) return true;  // Without a descriptor, only waits.
    if (ctx.Done()) return false;
  }
}

void ProcessHandle::Kill() const {
  // Called by number: kernels have had this system call for longer than C libraries have a wrapper.
  long result = -1;
  if (fd_) result = syscall(SYS_pidfd_send_signal, fd_.get(), SIGKILL, nullptr, 0);
  if (!fd_ || (result != 0 && LacksProcessDescriptors(errno))) {
    result = identity_.IsAlive() ? kill(identity_.pid, SIGKILL) : 0;
  }
  if (result == 0 || errno == ESRCH) return;
  if (errno != EPERM) ThrowErrno("kill", fmt::format("process {}", identity_.pid));
  Throw(
      ErrorKind::kIO,
      "cannot kill process {}: it belongs to another user, and this process runs as user {}; stop "
      "it as its user or as root",
      identity_.pid, geteuid());
}

void ProcessHandle::Reap() const {
  if (!fd_) {
    int ignored = 0;
    static_cast<void>(waitpid(identity_.pid, &ignored, WNOHANG));  // ECHILD: it is no child.
    return;
  }
  constexpr auto kPidFd =
      static_cast<idtype_t>(3);  // P_PIDFD, which is newer than some C libraries.
  siginfo_t ignored{};
  // ECHILD: this process is not the parent.
  static_cast<void>(waitid(kPidFd, static_cast<id_t>(fd_.get()), &ignored, WEXITED | WNOHANG));
}

}  // namespace msb::base
