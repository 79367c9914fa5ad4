// SPDX-License-Identifier: Apache-2.0

#include "tests/support/pid_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <system_error>
#include <utility>

namespace msb::test {
namespace {

[[noreturn]] void Report(int fd, const std::string& outcome) {
  static_cast<void>(!write(fd, outcome.data(), outcome.size()));
  _exit(0);
}

// Runs in the first process of the new namespace.
[[noreturn]] void RunInside(const std::function<void()>& function, int fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("proc", "/proc", "proc", 0, nullptr) != 0) {
    Report(fd, std::string("cannot mount /proc: ") + std::strerror(errno));
  }
  try {
    function();
  } catch (const std::exception& e) {
    Report(fd, e.what());
  }
  Report(fd, ".");
}

}  // namespace

ContainerProcess::ContainerProcess(const std::function<void()>& function) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw std::system_error(errno, std::generic_category(), "pipe2");
  }
  outer_ = fork();
  if (outer_ == 0) {
    close(ends[0]);
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
      Report(ends[1], std::string("unshare: ") + std::strerror(errno));
    }
    const pid_t inner = fork();
    if (inner == 0) RunInside(function, ends[1]);
    close(ends[1]);
    waitpid(inner, nullptr, 0);
    _exit(0);
  }
  close(ends[1]);
  result_ = ends[0];
}

ContainerProcess::~ContainerProcess() {
  Kill();
  close(result_);
}

std::string ContainerProcess::Wait() {
  std::string outcome;
  std::array<char, 4096> buffer{};
  for (ssize_t n = 1; n != 0;) {
    n = read(result_, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return "cannot be read";
    outcome.append(buffer.data(), static_cast<std::size_t>(n));
  }
  waitpid(std::exchange(outer_, -1), nullptr, 0);
  if (outcome.empty()) return "killed";
  return outcome == "." ? "" : outcome;
}

void ContainerProcess::Kill() {
  if (outer_ < 0) return;
  kill(outer_, SIGKILL);
  waitpid(std::exchange(outer_, -1), nullptr, 0);
  // The first process of the namespace dies with its parent and takes the others with it. After
  // that the pipe has no writer.
  std::array<char, 4096> buffer{};
  while (read(result_, buffer.data(), buffer.size()) > 0) {
  }
}

std::optional<std::string> WhyNoPidNamespaces() {
  const std::string outcome = ContainerProcess([] {}).Wait();
  return outcome.empty() ? std::nullopt : std::optional("no PID namespace: " + outcome);
}

}  // namespace msb::test
