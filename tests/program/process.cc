// SPDX-License-Identifier: Apache-2.0

#include "tests/program/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <stdexcept>

#include "src/base/file.h"

namespace msb::test {
namespace {

struct Pipe {
  Pipe() {
    std::array<int, 2> fds;
    if (pipe2(fds.data(), O_CLOEXEC) != 0) throw std::runtime_error("cannot make a pipe");
    reader = base::UniqueFd(fds[0]);
    writer = base::UniqueFd(fds[1]);
  }
  base::UniqueFd reader, writer;
};

// Makes fd the standard stream number target of this process, or closes that stream.
void SetStream(int fd, int target) {
  if (fd < 0) {
    close(target);
  } else {
    dup2(fd, target);
  }
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Appends what can be read to text. Returns false at the end of the stream.
bool ReadMore(int fd, std::string& text) {
  std::array<char, 1 << 16> buffer;
  const ssize_t count = read(fd, buffer.data(), buffer.size());
  if (count <= 0) return false;
  text.append(buffer.data(), static_cast<std::size_t>(count));
  return true;
}

// Feeds a process and collects its output until it has closed both streams.
class Conversation {
 public:
  Conversation(Pipe& in, Pipe& out, Pipe& err, const std::string& input)
      : in_(in.writer), out_(out.reader), err_(err.reader), input_(input) {
    fcntl(in_.get(), F_SETFL, O_NONBLOCK);
  }

  void Run(ProcessResult& result) {
    bool out_open = true;
    bool err_open = true;
    while (out_open || err_open) {
      if (written_ == input_.size()) in_ = base::UniqueFd();
      std::array<pollfd, 3> polled = {{{out_open ? out_.get() : -1, POLLIN, 0},
                                       {err_open ? err_.get() : -1, POLLIN, 0},
                                       {in_.get(), POLLOUT, 0}}};
      if (poll(polled.data(), polled.size(), -1) < 0) throw std::runtime_error("cannot poll");
      if (polled[0].revents != 0) out_open = ReadMore(out_.get(), result.out);
      if (polled[1].revents != 0) err_open = ReadMore(err_.get(), result.err);
      if (polled[2].revents != 0) Feed();
    }
  }

 private:
  void Feed() {
    const ssize_t count = write(in_.get(), input_.data() + written_, input_.size() - written_);
    // A process need not read all of its input.
    written_ = count < 0 ? input_.size() : written_ + static_cast<std::size_t>(count);
  }

  base::UniqueFd& in_;
  base::UniqueFd& out_;
  base::UniqueFd& err_;
  const std::string& input_;
  std::size_t written_ = 0;
};

}  // namespace

void Execute(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  if (!options.directory.empty() && chdir(options.directory.c_str()) != 0) return;
  // Programs inherit which signals are ignored: SIGPIPE by the tests, SIGHUP by nohup(1), and
  // others by shells that start the tests in the background.
  for (const int number : {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM}) signal(number, SIG_DFL);
  std::vector<std::string> words = arguments;
  std::vector<std::string> variables;
  for (const auto& [name, value] : options.environment) variables.push_back(name + "=" + value);
  execve(words[0].c_str(), Pointers(words).data(), Pointers(variables).data());
}

pid_t StartProcess(const std::vector<std::string>& arguments, const ProcessOptions& options,
                   const Streams& streams) {
  const pid_t pid = fork();
  if (pid < 0) throw std::runtime_error("cannot fork");
  if (pid > 0) return pid;
  // Keep the descriptors out of the way of the streams.
  const auto raised = [](int fd) { return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 10); };
  const Streams high{raised(streams.in), raised(streams.out), raised(streams.err)};
  SetStream(high.in, 0);
  SetStream(high.out, 1);
  SetStream(high.err, 2);
  Execute(arguments, options);
  _exit(127);
}

int WaitForProcess(pid_t pid, bool* killed) {
  int status = 0;
  while (waitpid(pid, &status, 0) != pid) {
    if (errno != EINTR) throw std::runtime_error("lost a process");
  }
  if (killed != nullptr) *killed = WIFSIGNALED(status);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

ProcessResult RunProcess(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  Pipe in;
  Pipe out;
  Pipe err;
  const pid_t pid =
      StartProcess(arguments, options, {in.reader.get(), out.writer.get(), err.writer.get()});
  in.reader = base::UniqueFd();
  out.writer = base::UniqueFd();
  err.writer = base::UniqueFd();
  ProcessResult result;
  Conversation(in, out, err, options.input).Run(result);
  result.exit_code = WaitForProcess(pid, &result.killed);
  return result;
}

}  // namespace msb::test
