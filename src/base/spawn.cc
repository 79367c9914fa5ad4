// SPDX-License-Identifier: Apache-2.0

#include "src/base/spawn.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

#include "src/base/orphan.h"
#include "src/base/owned_descriptor.h"
#include "src/base/retry.h"
#include "src/base/throw.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

namespace msb::base {
namespace {

// A message from the new process to this one. The first message has its pid, or the error of a step
// that failed before. A second one is sent only if the program could not be executed, and has the
// error.
enum class Step { kStart, kFork, kSetUp, kChangeDirectory, kExecute };
struct Report {
  Step step = Step::kStart;
  pid_t pid = 0;
  int error = 0;
};

// All that the new process needs. It is a copy of one thread of a program with many: a lock that
// another thread held stays locked in it, so it only makes system calls, and allocates nothing.
struct Launch {
  const char* path = nullptr;
  char* const* arguments = nullptr;
  char* const* environment = nullptr;
  const char* directory = nullptr;  // Null: that of this process.
  int input = -1;
  int output = -1;
  int channel = -1;         // The new process's end.
  int parent_channel = -1;  // This process's end.
  int leash_held = -1;
  int leash_program = -1;
  const int* inherited = nullptr;
  std::size_t inherited_count = 0;
};

void Tell(int channel, const Report& report) {
  // Errors are ignored: if the message does not arrive, the parent has ended, or it takes the
  // closed channel as the answer.
  static_cast<void>(send(channel, &report, sizeof report, MSG_NOSIGNAL));
}

[[noreturn]] void GiveUp(int channel, Step step) {
  Tell(channel, {.step = step, .pid = 0, .error = errno});
  _exit(127);
}

// Sets the default action for all signals and unblocks them: handlers are code of this process's
// program, and ignored signals would stay ignored.
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
  // The program that this library is part of may have opened descriptors without O_CLOEXEC. Linux
  // before 5.11 cannot mark them all at once; there, they leak.
  static_cast<void>(syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC));
  for (std::size_t i = 0; i < launch.inherited_count; ++i) {
    if (!KeepOpen(launch.inherited[i])) return false;
  }
  return KeepOpen(launch.leash_program) && dup2(launch.input, STDIN_FILENO) >= 0 &&
         dup2(launch.output, STDOUT_FILENO) >= 0 && dup2(launch.output, STDERR_FILENO) >= 0;
}

// Has the kernel kill this process when the other end of the leash is closed. Returns false with
// errno set if that fails.
bool TieTo(const Launch& launch) {
  const int fd = launch.leash_program;
  if (fcntl(fd, F_SETOWN, getpid()) != 0 || fcntl(fd, F_SETSIG, SIGKILL) != 0 ||
      fcntl(fd, F_SETFL, O_ASYNC) != 0) {
    return false;
  }
  // A hang-up that came before O_ASYNC was set has sent no signal.
  pollfd entry{.fd = fd, .events = 0, .revents = 0};
  if (poll(&entry, 1, 0) > 0) _exit(127);
  return true;
}

[[noreturn]] void Become(const Launch& launch) {
  close(launch.parent_channel);
  close(launch.leash_held);  // If this process held it too, the leash would never hang up.
  if (setsid() < 0 || !TieTo(launch)) GiveUp(launch.channel, Step::kSetUp);
  Tell(launch.channel, {.step = Step::kStart, .pid = getpid(), .error = 0});
  // Wait until the parent has read the identity of this process, which must not end before that.
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

// Receives a message. Returns nothing at the end of the channel.
std::optional<Report> Hear(int channel) {
  Report report;
  const ssize_t n = Retry([&] { return recv(channel, &report, sizeof report, MSG_WAITALL); });
  if (n < 0 && errno != ECONNRESET) ThrowErrno("receive from", "a new process");
  return n == sizeof report ? std::optional(report) : std::nullopt;
}

[[noreturn]] void ThrowFailure(const Program& program, const Report& report) {
  switch (report.step) {
    case Step::kStart:
    case Step::kFork:
      ThrowErrno("fork a process for", program.path.native(), report.error);
    case Step::kSetUp:
      ThrowErrno("set up a process for", program.path.native(), report.error);
    case Step::kChangeDirectory:
      ThrowErrno("change to directory", program.directory.native(), report.error);
    case Step::kExecute:
      break;
  }
  ThrowCannotExecute(program.path.native(), report.error);
}

// Lets the new process execute the program, and returns its identity.
ProcessIdentity Release(const Program& program, int channel,
                        const std::function<void(const ProcessIdentity& process)>& before_program) {
  const auto started = Hear(channel);
  if (started && started->error != 0) ThrowFailure(program, *started);
  auto identity = started ? ProcessIdentity::Of(started->pid) : std::nullopt;
  if (!identity) {
    Throw(
        ErrorKind::kIO,
        "cannot start {}: its process was killed; look at the kernel's log (dmesg) for the reason",
        program.path.native());
  }
  if (identity->start_ticks == 0) ThrowErrno("read", fmt::format("/proc/{}/stat", identity->pid));
  // The kernel gives the process this name when it executes the program.
  identity->program = program.path.filename().native().substr(0, 15);
  if (before_program) before_program(*identity);
  static_cast<void>(send(channel, "", 1, MSG_NOSIGNAL));  // If this fails, it was killed.
  if (const auto failure = Hear(channel)) ThrowFailure(program, *failure);
  return *identity;
}

UniqueFd OpenOutput(int output) {
  UniqueFd fd = output >= 0 ? Duplicate(output) : OpenAt(AT_FDCWD, "/dev/null", O_RDWR);
  if (!fd) ThrowErrno("open", output >= 0 ? PathOf(output) : "/dev/null");
  return fd;
}

}  // namespace

Leash::Leash() {
  std::tie(program_, held_) = OpenPipe();
  if (!held_) ThrowErrno("create", "a pipe");
  NoteOwnedByProcess(held_.get());
}

void Leash::LetGo() {
  if (program_ && fcntl(program_.get(), F_SETFL, 0) != 0) ThrowErrno("detach from", "a program");
}

ProcessIdentity Spawn(const Program& program, const Leash& leash,
                      const std::function<void(const ProcessIdentity& process)>& before_program) {
  std::error_code error;
  // A relative path is relative to the directory of this process, not to that of the program.
  const std::filesystem::path path = std::filesystem::absolute(program.path, error);
  if (error) ThrowErrno("resolve", program.path.native(), error.value());
  // execve(2) does not change the arguments, although the type of its parameter would allow it.
  std::vector<char*> arguments = {const_cast<char*>(program.path.c_str())};
  for (const std::string& argument : program.arguments) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  const UniqueFd input = OpenOutput(-1);
  const UniqueFd output = OpenOutput(program.output);
  auto channel = OpenUnixSocketPair();
  if (!channel.first) ThrowErrno("create", "a pair of sockets");
  const Launch launch{.path = path.c_str(),
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
                      .inherited_count = program.inherited.size()};
  ForkOrphan(program.path.native(), [&launch](int fork_error) {
    if (fork_error == 0) Become(launch);
    errno = fork_error;
    GiveUp(launch.channel, Step::kFork);
  });
  channel.second.Reset(-1);
  return Release(program, channel.first.get(), before_program);
}

UniqueFd MakeMemoryFile() {
  UniqueFd fd = OpenMemoryFile("msb");
  if (!fd) ThrowErrno("create", "a memfd");
  return fd;
}

bool IsProgram(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

std::filesystem::path FindProgram(const std::filesystem::path& name) {
  if (name.native().find('/') != std::string::npos) return name;
  const char* search = std::getenv("PATH");
  std::string_view left = search == nullptr || name.empty() ? "" : search;
  while (!left.empty()) {
    const std::string_view directory = left.substr(0, left.find(':'));
    left.remove_prefix(std::min(left.size(), directory.size() + 1));
    std::filesystem::path path = std::filesystem::path(directory) / name;
    // An empty entry means the current directory, from which it is not safe to run programs.
    if (!directory.empty() && IsProgram(path)) return path;
  }
  return {};
}

}  // namespace msb::base
