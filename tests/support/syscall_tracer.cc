#include "tests/support/syscall_tracer.h"

#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <stdexcept>

namespace msb::test {
namespace {

pid_t StartTraced(const std::function<int()>& code) {
  const pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    int status = 127;
    try {
      status = code();
    } catch (...) {
    }
    _exit(status);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
    throw std::runtime_error("cannot trace a child");
  }
  const auto options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
  ptrace(PTRACE_SETOPTIONS, child, nullptr, options);
  return child;
}

// Lets the child run to its next stop. True if that is the entry to or the exit from a system call;
// false if it has ended.
bool RunToSyscall(pid_t child, int& status) {
  long signal = 0;
  for (;;) {
    ptrace(PTRACE_SYSCALL, child, nullptr, signal);
    if (waitpid(child, &status, 0) != child) throw std::runtime_error("lost a traced child");
    if (!WIFSTOPPED(status)) return false;
    if (WSTOPSIG(status) == (SIGTRAP | 0x80)) return true;
    signal = WSTOPSIG(status);
  }
}

struct Registers {
  explicit Registers(pid_t child) { ptrace(PTRACE_GETREGS, child, nullptr, &values); }
  user_regs_struct values{};
};

TracedRun Trace(const std::function<int()>& code, const std::function<bool(long)>& is_the_one,
                const std::function<void(pid_t, Registers)>& interfere) {
  const pid_t child = StartTraced(code);
  TracedRun run;
  int status = 0;
  bool entry = true;
  while (RunToSyscall(child, status)) {
    if (entry && !run.interfered) {
      const Registers registers(child);
      const auto number = static_cast<long>(registers.values.orig_rax);
      if (is_the_one(number)) {
        run.interfered = true;
        run.syscall = number;
        interfere(child, registers);
        // The way out of a call that was made to fail is passed by interfere.
        entry = false;
      }
    }
    entry = !entry;
  }
  if (WIFEXITED(status)) run.exit_status = WEXITSTATUS(status);
  return run;
}

}  // namespace

TracedRun KillAtSyscall(int n, const std::function<int()>& code) {
  int count = 0;
  return Trace(
      code, [&](long) { return count++ == n; },
      [](pid_t child, const Registers&) { kill(child, SIGKILL); });
}

TracedRun FailSyscall(int n, const std::set<long>& syscalls, int error,
                      const std::function<int()>& code) {
  int count = 0;
  return Trace(
      code, [&](long number) { return syscalls.contains(number) && count++ == n; },
      [error](pid_t child, Registers registers) {
        // A call of an invalid number does nothing; then its result is replaced.
        registers.values.orig_rax = static_cast<std::uint64_t>(-1);
        ptrace(PTRACE_SETREGS, child, nullptr, &registers.values);
        int status = 0;
        RunToSyscall(child, status);
        registers.values.rax = static_cast<std::uint64_t>(-error);
        ptrace(PTRACE_SETREGS, child, nullptr, &registers.values);
      });
}

}  // namespace msb::test
