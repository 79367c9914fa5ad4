// SPDX-License-Identifier: Apache-2.0

#include "tests/support/syscall_tracer.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <string>

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

// Resumes the child until it enters or leaves a system call (returns true) or ends (returns false).
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
  explicit Registers(pid_t child) : process(child) {
    ptrace(PTRACE_GETREGS, child, nullptr, &values);
  }
  SystemCall Call() const {
    return {static_cast<long>(values.orig_rax),
            {values.rdi, values.rsi, values.rdx, values.r10, values.r8, values.r9},
            process};
  }
  pid_t process;
  user_regs_struct values{};
};

TracedRun Trace(const std::function<int()>& code,
                const std::function<bool(const SystemCall&)>& is_the_one,
                const std::function<void(pid_t, Registers)>& interfere) {
  const pid_t child = StartTraced(code);
  TracedRun run;
  int status = 0;
  bool entry = true;
  while (RunToSyscall(child, status)) {
    if (entry && !run.interfered) {
      const Registers registers(child);
      const SystemCall call = registers.Call();
      if (is_the_one(call)) {
        run.interfered = true;
        run.syscall = call.number;
        interfere(child, registers);
        // interfere has passed the exit from a call that it made fail.
        entry = false;
      }
    }
    entry = !entry;
  }
  if (WIFEXITED(status)) run.exit_status = WEXITSTATUS(status);
  return run;
}

}  // namespace

bool SystemCall::Sends(std::string_view text) const {
  if (number != SYS_sendto) return false;
  std::string message(arguments[2], '\0');
  const iovec local = {message.data(), message.size()};
  const iovec remote = {reinterpret_cast<void*>(arguments[1]), message.size()};
  return process_vm_readv(process, &local, 1, &remote, 1, 0) > 0 &&
         message.find(text) != std::string::npos;
}

TracedRun KillAtSyscall(int n, const std::function<int()>& code) {
  return InterfereAtSyscall(
      n, [](const SystemCall&) { return true; }, code, [](pid_t child) { kill(child, SIGKILL); });
}

TracedRun InterfereAtSyscall(int n, const std::function<bool(const SystemCall&)>& matches,
                             const std::function<int()>& code,
                             const std::function<void(pid_t child)>& interfere) {
  int count = 0;
  return Trace(
      code, [&](const SystemCall& call) { return matches(call) && count++ == n; },
      [&](pid_t child, const Registers&) { interfere(child); });
}

TracedRun FailSyscall(int n, const std::set<long>& syscalls, int error,
                      const std::function<int()>& code) {
  int count = 0;
  return Trace(
      code, [&](const SystemCall& call) { return syscalls.contains(call.number) && count++ == n; },
      [error](pid_t child, Registers registers) {
        // A call with an invalid number does nothing; its result is replaced at the exit.
        registers.values.orig_rax = static_cast<std::uint64_t>(-1);
        ptrace(PTRACE_SETREGS, child, nullptr, &registers.values);
        int status = 0;
        RunToSyscall(child, status);
        registers.values.rax = static_cast<std::uint64_t>(-error);
        ptrace(PTRACE_SETREGS, child, nullptr, &registers.values);
      });
}

}  // namespace msb::test
