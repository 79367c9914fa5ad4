// SPDX-License-Identifier: Apache-2.0

#include "src/base/command.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include "src/base/file.h"
#include "src/base/retry.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::base {
namespace {

struct Pipe {
  UniqueFd read;  // Non-blocking.
  UniqueFd write;
};

Pipe MakePipe() {
  auto [read, write] = OpenPipe();
  if (!read) ThrowErrno("create", "a pipe");
  Pipe pipe{std::move(read), std::move(write)};
  if (fcntl(pipe.read.get(), F_SETFL, O_NONBLOCK) != 0) ThrowErrno("set up", "a pipe");
  return pipe;
}

// Opens the standard input of the command. It is a file rather than a pipe, so that a program that
// does not read it can neither block this process nor raise SIGPIPE in it.
UniqueFd OpenInput(const Command& command) {
  if (command.input.empty()) {
    UniqueFd null = OpenAt(AT_FDCWD, "/dev/null", O_RDONLY);
    if (!null) ThrowErrno("open", "/dev/null");
    return null;
  }
  UniqueFd file = OpenMemoryFile("msb-input");
  if (!file) ThrowErrno("create", "a memfd");
  // This does not move the position of the file, at which the program begins to read.
  WriteExactly(file.get(), command.input.data(), command.input.size(), 0);
  return file;
}

// Owns the file actions and attributes that posix_spawn(3) applies in the new process.
class SpawnPlan {
 public:
  SpawnPlan() {
    posix_spawn_file_actions_init(&actions_);
    posix_spawnattr_init(&attributes_);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }

  void SetDescriptors(int input, int output, int error) {
    posix_spawn_file_actions_adddup2(&actions_, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, error, STDERR_FILENO);
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
    // The program that this library is part of may have opened descriptors without O_CLOEXEC. The
    // new process may live long, so it must not inherit them.
    posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1);
#endif
#endif
  }

  // Gives the new process a process group of its own and resets its signals: those that this
  // process ignores or blocks would stay ignored or blocked.
  void ResetSignals() {
    sigset_t signals;
    sigfillset(&signals);
    posix_spawnattr_setsigdefault(&attributes_, &signals);
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes_, &signals);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  }

  pid_t Spawn(const char* path, char* const* arguments, char* const* environment) const {
    pid_t pid = 0;
    const int error = posix_spawn(&pid, path, &actions_, &attributes_, arguments, environment);
    if (error != 0) ThrowCannotExecute(path, error);
    return pid;
  }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

// Returns the environment of this process with the command's variables added or replaced, as
// "NAME=value" strings.
std::vector<std::string> EnvironmentOf(const Command& command) {
  std::vector<std::string> environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    const bool replaced = std::any_of(command.environment.begin(), command.environment.end(),
                                      [&](const auto& variable) { return variable.first == name; });
    if (!replaced) environment.emplace_back(text);
  }
  for (const auto& [name, value] : command.environment) {
    environment.push_back(fmt::format("{}={}", name, value));
  }
  return environment;
}

// Returns pointers to the texts, and a null pointer at the end. posix_spawn(3) does not change the
// texts, although the type of its parameter would allow it.
std::vector<char*> PointersTo(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// A child process in a process group of its own. The destructor kills the group unless ExitStatus
// was called.
class Child {
 public:
  Child(const Command& command, int output, int error) : program_(command.program.native()) {
    std::vector<std::string> words = {program_};
    words.insert(words.end(), command.arguments.begin(), command.arguments.end());
    const std::vector<std::string> environment = EnvironmentOf(command);
    const UniqueFd input = OpenInput(command);
    SpawnPlan plan;
    plan.SetDescriptors(input.get(), output, error);
    plan.ResetSignals();
    pid_ = plan.Spawn(program_.c_str(), PointersTo(words).data(), PointersTo(environment).data());
    fd_ = OpenProcess(pid_);
    const int failure = errno;
    if (!fd_ && !LacksProcessDescriptors(failure)) {
      KillGroup();
      ThrowErrno("open a pidfd for", program_, failure);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ != 0) KillGroup();
  }

  // Becomes readable when the child has ended; -1 if the kernel does not tell.
  int fd() const { return fd_.get(); }

  // Returns true if the child has ended, without reaping it.
  bool HasEnded() const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid != 0;
  }

  // Reaps the child, which must have ended, and returns its exit status as CommandResult has it.
  int ExitStatus() {
    int status = 0;
    const pid_t pid = std::exchange(pid_, 0);
    // ECHILD: other code in this process, which waits for any child, has already reaped it.
    if (Retry([&] { return waitpid(pid, &status, 0); }) < 0) {
      ThrowErrno("get the exit status of", program_);
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  void KillGroup() {
    // The child has not been reaped, so its pid and its group id have not been reused.
    kill(-pid_, SIGKILL);
    kill(pid_, SIGKILL);
    static_cast<void>(Retry([&] { return waitpid(pid_, nullptr, 0); }));
    pid_ = 0;
  }

  const std::string program_;
  pid_t pid_ = 0;
  UniqueFd fd_;
};

// Reads what is available, and closes the pipe at its end. Appends to into until that has
// max_bytes, and discards the rest. Stops after reading about kMaxCommandOutput bytes, so that a
// program that writes without end cannot keep the caller here. Returns whether bytes were
// discarded.
bool Drain(UniqueFd& pipe, std::string& into, std::size_t max_bytes) {
  bool is_truncated = false;
  std::array<char, 1 << 16> buffer;
  for (std::size_t total = 0; pipe && total < kMaxCommandOutput;) {
    const ssize_t n = Retry([&] { return read(pipe.get(), buffer.data(), buffer.size()); });
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) ThrowErrno("read from", "a pipe");
    if (n == 0) pipe.Reset(-1);
    const auto count = static_cast<std::size_t>(n);
    const std::size_t kept = std::min(count, max_bytes - into.size());
    total += count;
    into.append(buffer.data(), kept);
    is_truncated = is_truncated || kept < count;
  }
  return is_truncated;
}

// Waits until one of the descriptors is readable, but at most 50 ms and until the deadline of ctx.
// Returns true if process is readable: the process has ended.
bool Await(const Context& ctx, int process, int output, int error) {
  std::chrono::milliseconds wait(50);
  if (const auto left = ctx.TimeLeft()) {
    wait = std::min(wait, std::chrono::ceil<std::chrono::milliseconds>(*left));
  }
  // poll(2) ignores negative descriptors, which are those of closed pipes.
  std::array<pollfd, 3> entries = {pollfd{.fd = process, .events = POLLIN, .revents = 0},
                                   pollfd{.fd = output, .events = POLLIN, .revents = 0},
                                   pollfd{.fd = error, .events = POLLIN, .revents = 0}};
  const int ready = poll(entries.data(), entries.size(), static_cast<int>(wait.count()));
  if (ready < 0 && errno != EINTR) ThrowErrno("wait for", "a process");
  return ready > 0 && entries[0].revents != 0;
}

void CheckRunnable(const Command& command) {
  for (const std::string& argument : command.arguments) {
    if (argument.find('\0') == std::string::npos) continue;
    Throw(ErrorKind::kInvalidArgument, "cannot run {}: its argument '{}' contains a NUL byte",
          command.program.native(), Quoted(argument));
  }
  struct sigaction action {};
  sigaction(SIGCHLD, nullptr, &action);
  if (action.sa_handler != SIG_IGN && (action.sa_flags & SA_NOCLDWAIT) == 0) return;
  Throw(ErrorKind::kUnsupportedOperation,
        "cannot run {}: this process ignores SIGCHLD or has set SA_NOCLDWAIT, so the kernel "
        "discards exit statuses; set SIGCHLD to SIG_DFL",
        command.program.native());
}

}  // namespace

CommandResult RunCommand(const Context& ctx, const Command& command) {
  ctx.Check();
  CheckRunnable(command);
  Pipe output = MakePipe();
  Pipe error = MakePipe();
  Child child(command, output.write.get(), error.write.get());
  output.write.Reset(-1);
  error.write.Reset(-1);
  CommandResult result;
  for (bool ended = false; !ended;) {
    ended = Await(ctx, child.fd(), output.read.get(), error.read.get());
    if (child.fd() < 0) ended = child.HasEnded();
    for (auto [pipe, into] :
         {std::pair(&output.read, &result.output), std::pair(&error.read, &result.error)}) {
      if (Drain(*pipe, *into, command.max_output)) result.is_truncated = true;
    }
    if (!ended) ctx.Check();
  }
  result.exit_status = child.ExitStatus();
  return result;
}

}  // namespace msb::base
