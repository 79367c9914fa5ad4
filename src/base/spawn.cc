#include "src/base/spawn.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "src/base/throw.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

namespace msb::base {
namespace {

struct Ends {
  UniqueFd first;
  UniqueFd second;
};

Ends MoveAboveStandard(const std::array<int, 2>& fds) {
  Ends ends{UniqueFd(fds[0]), UniqueFd(fds[1])};
  return {AboveStandard(std::move(ends.first)), AboveStandard(std::move(ends.second))};
}

// What the new process tells this one, in this order: its pid, then why it is not the program. If
// the second is missing, it is.
enum class Step { kStart, kFork, kSetUp, kChangeDirectory, kExecute };
struct Report {
  Step step = Step::kStart;
  pid_t pid = 0;
  int error = 0;
};

// All that the new process needs. It is a copy of one thread of a program with many: whatever lock
// another one held stays locked, so it makes system calls only, and allocates nothing.
struct Launch {
  const char* path = nullptr;
  char* const* arguments = nullptr;
  char* const* environment = nullptr;
  const char* directory = nullptr;  // Or null: that of this process.
  int input = -1;
  int output = -1;
  int channel = -1;         // To this process.
  int parent_channel = -1;  // The other end.
  int leash_held = -1;
  int leash_program = -1;
  const int* inherited = nullptr;
  std::size_t inherited_count = 0;
};

void Tell(int channel, const Report& report) {
  // If it does not arrive, the parent has ended, or takes the end of the channel as an answer.
  static_cast<void>(send(channel, &report, sizeof report, MSG_NOSIGNAL));
}

[[noreturn]] void GiveUp(int channel, Step step) {
  Tell(channel, {.step = step, .pid = 0, .error = errno});
  _exit(127);
}

// Handlers are code of this process's program; ignored signals would stay ignored.
void ResetSignals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool KeepOpen(int fd) { return fcntl(fd, F_SETFD, 0) == 0; }

bool SetDescriptors(const Launch& launch) {
  // The program that this library is part of may have opened any number without O_CLOEXEC. Linux
  // before 5.11 cannot mark them at once; there, those leak.
  static_cast<void>(syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC));
  for (std::size_t i = 0; i < launch.inherited_count; ++i) {
    if (!KeepOpen(launch.inherited[i])) return false;
  }
  return KeepOpen(launch.leash_program) && dup2(launch.input, STDIN_FILENO) >= 0 &&
         dup2(launch.output, STDOUT_FILENO) >= 0 && dup2(launch.output, STDERR_FILENO) >= 0;
}

// False, with errno, if it cannot be.
bool TieTo(const Launch& launch) {
  const int fd = launch.leash_program;
  if (fcntl(fd, F_SETOWN, getpid()) != 0 || fcntl(fd, F_SETSIG, SIGKILL) != 0 ||
      fcntl(fd, F_SETFL, O_ASYNC) != 0) {
    return false;
  }
  // A hang-up that came before the flag was set sent no signal.
  pollfd entry{.fd = fd, .events = 0, .revents = 0};
  if (poll(&entry, 1, 0) > 0) _exit(127);
  return true;
}

[[noreturn]] void Become(const Launch& launch) {
  close(launch.leash_held);  // Held by this process, the leash would never hang up.
  if (setsid() < 0 || !TieTo(launch)) GiveUp(launch.channel, Step::kSetUp);
  Tell(launch.channel, {.step = Step::kStart, .pid = getpid(), .error = 0});
  // The parent reads who this is before it can have ended.
  char go = 0;
  if (recv(launch.channel, &go, 1, 0) != 1) _exit(127);
  if (!SetDescriptors(launch)) GiveUp(launch.channel, Step::kSetUp);
  if (launch.directory != nullptr && chdir(launch.directory) != 0) {
    GiveUp(launch.channel, Step::kChangeDirectory);
  }
  ResetSignals();
  execve(launch.path, launch.arguments, launch.environment);
  GiveUp(launch.channel, Step::kExecute);
}

// Forks twice, so that the new process is a child of init. When it returns, only the new process
// has the other end of the channel.
void Fork(const Launch& launch) {
  // Until they are reset, handlers of this program must not run in the new process.
  sigset_t all;
  sigset_t old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  const pid_t intermediate = fork();
  if (intermediate == 0) {
    close(launch.parent_channel);
    const pid_t pid = fork();
    if (pid == 0) Become(launch);
    if (pid < 0) GiveUp(launch.channel, Step::kFork);
    _exit(0);
  }
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  if (intermediate < 0) ThrowErrno("fork for", launch.path, error);
  // ECHILD: whoever waits for any child of this process has seen it end.
  while (waitpid(intermediate, nullptr, 0) < 0 && errno == EINTR) {
  }
}

// Nothing at the end of the channel.
std::optional<Report> Hear(int channel) {
  Report report;
  for (;;) {
    const ssize_t n = recv(channel, &report, sizeof report, MSG_WAITALL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != ECONNRESET) ThrowErrno("start", "a program");
    return n == sizeof report ? std::optional(report) : std::nullopt;
  }
}

[[noreturn]] void ThrowFailure(const Program& program, const Report& report) {
  switch (report.step) {
    case Step::kStart:
    case Step::kFork:
      ThrowErrno("fork for", program.path.native(), report.error);
    case Step::kSetUp:
      ThrowErrno("set up a process for", program.path.native(), report.error);
    case Step::kChangeDirectory:
      ThrowErrno("change to directory", program.directory.native(), report.error);
    case Step::kExecute:
      break;
  }
  ThrowErrno("execute", program.path.native(), report.error);
}

// Lets the new process become the program, and returns who it is.
ProcessIdentity Release(const Program& program, int channel,
                        const std::function<void(const ProcessIdentity& process)>& before_program) {
  const auto started = Hear(channel);
  if (started && started->error != 0) ThrowFailure(program, *started);
  auto identity = started ? ProcessIdentity::Of(started->pid) : std::nullopt;
  if (!identity) {
    Throw(ErrorKind::kIO, "cannot start {}: its process was killed", program.path.native());
  }
  if (identity->start_ticks == 0) ThrowErrno("read", fmt::format("/proc/{}/stat", identity->pid));
  // The kernel calls it so once it is executed.
  identity->program = program.path.filename().native().substr(0, 15);
  if (before_program) before_program(*identity);
  static_cast<void>(send(channel, "", 1, MSG_NOSIGNAL));  // If that fails, it was killed.
  if (const auto failure = Hear(channel)) ThrowFailure(program, *failure);
  return *identity;
}

UniqueFd OpenOutput(int output) {
  UniqueFd fd(output >= 0 ? fcntl(output, F_DUPFD_CLOEXEC, 0)
                          : open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!fd) ThrowErrno("open", output >= 0 ? "a program's output" : "/dev/null");
  return AboveStandard(std::move(fd));
}

}  // namespace

UniqueFd AboveStandard(UniqueFd fd) {
  if (!fd || fd.get() > STDERR_FILENO) return fd;
  UniqueFd duplicate(fcntl(fd.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  if (!duplicate) ThrowErrno("duplicate", "a descriptor");
  return duplicate;
}

Leash::Leash() {
  std::array<int, 2> fds{};
  if (pipe2(fds.data(), O_CLOEXEC) != 0) ThrowErrno("make", "a pipe");
  Ends ends = MoveAboveStandard(fds);
  program_ = std::move(ends.first);
  held_ = std::move(ends.second);
}

void Leash::LetGo() {
  if (program_ && fcntl(program_.get(), F_SETFL, 0) != 0) ThrowErrno("let go of", "a program");
}

ProcessIdentity Spawn(const Program& program, const Leash& leash,
                      const std::function<void(const ProcessIdentity& process)>& before_program) {
  std::error_code error;
  // Relative to the directory of this process, not to the program's.
  const std::filesystem::path path = std::filesystem::absolute(program.path, error);
  if (error) ThrowErrno("resolve", program.path.native(), error.value());
  // execve(2) does not change them, though its type says that it may.
  std::vector<char*> arguments = {const_cast<char*>(program.path.c_str())};
  for (const std::string& argument : program.arguments) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  const UniqueFd input = OpenOutput(-1);
  const UniqueFd output = OpenOutput(program.output);
  std::array<int, 2> fds{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0) {
    ThrowErrno("make", "a pair of sockets");
  }
  Ends channel = MoveAboveStandard(fds);
  Fork({.path = path.c_str(),
        .arguments = arguments.data(),
        .environment = environ,
        .directory = program.directory.empty() ? nullptr : program.directory.c_str(),
        .input = input.get(),
        .output = output.get(),
        .channel = channel.second.get(),
        .parent_channel = channel.first.get(),
        .leash_held = leash.held_.get(),
        .leash_program = leash.program_.get(),
        .inherited = program.inherited.data(),
        .inherited_count = program.inherited.size()});
  channel.second.Reset(-1);
  return Release(program, channel.first.get(), before_program);
}

UniqueFd MakeMemoryFile() {
  UniqueFd fd(memfd_create("msb", MFD_CLOEXEC));
  if (!fd) ThrowErrno("make", "a file in memory");
  return AboveStandard(std::move(fd));
}

std::filesystem::path FindProgram(const std::filesystem::path& name) {
  if (name.native().find('/') != std::string::npos) return name;
  const char* search = std::getenv("PATH");
  std::string_view left = search == nullptr || name.empty() ? "" : search;
  while (!left.empty()) {
    const std::string_view directory = left.substr(0, left.find(':'));
    left.remove_prefix(std::min(left.size(), directory.size() + 1));
    std::filesystem::path path = std::filesystem::path(directory) / name;
    std::error_code error;
    // An empty one means the current directory, which nobody wants to run programs from.
    if (!directory.empty() && std::filesystem::is_regular_file(path, error) &&
        access(path.c_str(), X_OK) == 0) {
      return path;
    }
  }
  return {};
}

}  // namespace msb::base
