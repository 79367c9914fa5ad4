// SPDX-License-Identifier: Apache-2.0

#include "tests/support/call_interceptor.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>

namespace msb::test {
namespace {

constexpr std::size_t kReportBytes = 64 << 10;
constexpr unsigned kTimeoutSeconds = 60;
constexpr int kReturned = 0;
constexpr int kThrew = 1;
constexpr long kOptions = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;

// Classifies calls by what they operate on, which determines the errors that they can fail with.
enum class Kind {
  kOpen,       // A path; opens a descriptor.
  kStat,       // A path; reads metadata.
  kStatFd,     // A descriptor; reads metadata.
  kRead,       // A descriptor.
  kReadDir,    // A descriptor.
  kWrite,      // A descriptor; may need space.
  kFlush,      // A descriptor.
  kSetMode,    // A descriptor.
  kSetModeAt,  // A path.
  kMake,       // A path; makes a directory or a symbolic link.
  kRemove,     // A path.
  kRename,     // Two paths.
  kLink,       // Two paths.
  kLock,       // A descriptor.
  kClone,      // A descriptor: ioctl FICLONE, copy_file_range.
  kControl,    // A descriptor: fcntl.
  kDescriptor  // Creates a descriptor that has no path.
};

struct Known {
  std::string_view name;
  Kind kind;
  // Index of the path argument; for kRename and kLink, that of the first of the two paths.
  std::size_t path = 0;
};

const std::map<long, Known>& KnownCalls() {
  static const std::map<long, Known> calls = {
      {SYS_open, {"open", Kind::kOpen, 0}},
      {SYS_openat, {"openat", Kind::kOpen, 1}},
      {SYS_creat, {"creat", Kind::kOpen, 0}},
      {SYS_stat, {"stat", Kind::kStat, 0}},
      {SYS_lstat, {"lstat", Kind::kStat, 0}},
      {SYS_newfstatat, {"newfstatat", Kind::kStat, 1}},
      {SYS_statx, {"statx", Kind::kStat, 1}},
      {SYS_access, {"access", Kind::kStat, 0}},
      {SYS_faccessat, {"faccessat", Kind::kStat, 1}},
      {SYS_faccessat2, {"faccessat2", Kind::kStat, 1}},
      {SYS_readlink, {"readlink", Kind::kStat, 0}},
      {SYS_readlinkat, {"readlinkat", Kind::kStat, 1}},
      {SYS_fstat, {"fstat", Kind::kStatFd}},
      {SYS_fstatfs, {"fstatfs", Kind::kStatFd}},
      {SYS_read, {"read", Kind::kRead}},
      {SYS_pread64, {"pread64", Kind::kRead}},
      {SYS_readv, {"readv", Kind::kRead}},
      {SYS_preadv, {"preadv", Kind::kRead}},
      {SYS_getdents64, {"getdents64", Kind::kReadDir}},
      {SYS_write, {"write", Kind::kWrite}},
      {SYS_pwrite64, {"pwrite64", Kind::kWrite}},
      {SYS_writev, {"writev", Kind::kWrite}},
      {SYS_pwritev, {"pwritev", Kind::kWrite}},
      {SYS_ftruncate, {"ftruncate", Kind::kWrite}},
      {SYS_fallocate, {"fallocate", Kind::kWrite}},
      {SYS_fsync, {"fsync", Kind::kFlush}},
      {SYS_fdatasync, {"fdatasync", Kind::kFlush}},
      {SYS_fchmod, {"fchmod", Kind::kSetMode}},
      {SYS_fchown, {"fchown", Kind::kSetMode}},
      {SYS_futimesat, {"futimesat", Kind::kSetMode}},
      {SYS_chmod, {"chmod", Kind::kSetModeAt, 0}},
      {SYS_fchmodat, {"fchmodat", Kind::kSetModeAt, 1}},
      {SYS_mkdir, {"mkdir", Kind::kMake, 0}},
      {SYS_mkdirat, {"mkdirat", Kind::kMake, 1}},
      {SYS_symlink, {"symlink", Kind::kMake, 1}},
      {SYS_symlinkat, {"symlinkat", Kind::kMake, 2}},
      {SYS_unlink, {"unlink", Kind::kRemove, 0}},
      {SYS_unlinkat, {"unlinkat", Kind::kRemove, 1}},
      {SYS_rmdir, {"rmdir", Kind::kRemove, 0}},
      {SYS_rename, {"rename", Kind::kRename, 0}},
      {SYS_renameat, {"renameat", Kind::kRename, 1}},
      {SYS_renameat2, {"renameat2", Kind::kRename, 1}},
      {SYS_link, {"link", Kind::kLink, 0}},
      {SYS_linkat, {"linkat", Kind::kLink, 1}},
      {SYS_flock, {"flock", Kind::kLock}},
      {SYS_ioctl, {"ioctl", Kind::kClone}},
      {SYS_copy_file_range, {"copy_file_range", Kind::kClone}},
      {SYS_fcntl, {"fcntl", Kind::kControl}},
      {SYS_pipe2, {"pipe2", Kind::kDescriptor}},
      {SYS_eventfd2, {"eventfd2", Kind::kDescriptor}},
      {SYS_pidfd_open, {"pidfd_open", Kind::kDescriptor}},
      {SYS_memfd_create, {"memfd_create", Kind::kDescriptor}},
  };
  return calls;
}

const Known* Find(const InterceptedCall& call) {
  const auto known = KnownCalls().find(call.number);
  return known == KnownCalls().end() ? nullptr : &known->second;
}

bool WorksOnDescriptor(Kind kind) {
  switch (kind) {
    case Kind::kStatFd:
    case Kind::kRead:
    case Kind::kReadDir:
    case Kind::kWrite:
    case Kind::kFlush:
    case Kind::kSetMode:
    case Kind::kLock:
    case Kind::kClone:
    case Kind::kControl:
      return true;
    default:
      return false;
  }
}

// Returns the numbers of the known calls for which is_wanted is true.
std::vector<long> NumbersOf(const std::function<bool(long number, Kind kind)>& is_wanted) {
  std::vector<long> numbers;
  for (const auto& [number, known] : KnownCalls()) {
    if (is_wanted(number, known.kind)) numbers.push_back(number);
  }
  return numbers;
}

// Returns true if calls of this kind may change something, depending on their arguments.
bool MayChange(Kind kind) {
  return kind != Kind::kStat && kind != Kind::kStatFd && kind != Kind::kRead &&
         kind != Kind::kReadDir && kind != Kind::kDescriptor;
}

// Returns true if this call can fail with the error, depending on its arguments.
bool CanFailWith(long number, Kind kind, int error) {
  switch (error) {
    case EIO:
      return kind != Kind::kLock && kind != Kind::kControl && kind != Kind::kDescriptor;
    case ENOSPC:
      return kind == Kind::kOpen || kind == Kind::kWrite || kind == Kind::kFlush ||
             kind == Kind::kMake || kind == Kind::kRename || kind == Kind::kLink ||
             kind == Kind::kClone;
    case EACCES:
      return kind == Kind::kOpen || kind == Kind::kStat || kind == Kind::kMake ||
             kind == Kind::kRemove || kind == Kind::kRename || kind == Kind::kLink;
    case EPERM:
      return kind == Kind::kSetMode || kind == Kind::kSetModeAt || kind == Kind::kRemove ||
             kind == Kind::kLink;
    case EXDEV:
      return kind == Kind::kRename || kind == Kind::kLink || kind == Kind::kClone;
    case EMLINK:
      return kind == Kind::kLink || number == SYS_mkdir || number == SYS_mkdirat;
    case EMFILE:
      return kind == Kind::kOpen || kind == Kind::kControl || kind == Kind::kDescriptor;
    case ENOLCK:
      return kind == Kind::kLock || kind == Kind::kControl;
    default:
      return false;
  }
}

// Returns the flags of an open call.
std::uint64_t OpenFlags(const InterceptedCall& call) {
  if (call.number == SYS_creat) return O_CREAT | O_WRONLY | O_TRUNC;
  return call.arguments[call.number == SYS_open ? 1 : 2];
}

bool SetsLock(const InterceptedCall& call) {
  const std::uint64_t command = call.arguments[1];
  return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK ||
         command == F_OFD_SETLKW;
}

// Returns true for a path on a disk or in /dev/shm, and false for pipes, devices and kernel file
// systems.
bool IsOnDisk(const std::string& path) {
  return path.starts_with('/') && !path.starts_with("/proc/") && !path.starts_with("/sys/") &&
         (!path.starts_with("/dev/") || path.starts_with("/dev/shm/"));
}

[[noreturn]] void FailSetUp(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// Makes the given calls of this thread, and of all threads that it starts, stop for the tracer.
void InstallFilter(const std::vector<long>& calls) {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (std::size_t i = 0; i < calls.size(); ++i) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(calls[i]),
                               static_cast<unsigned char>(calls.size() - i), 0));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE));
  const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) FailSetUp("PR_SET_NO_NEW_PRIVS");
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) FailSetUp("PR_SET_SECCOMP");
}

// Shared memory in which the child returns its report.
class SharedText {
 public:
  SharedText()
      : memory_(mmap(nullptr, kReportBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                     0)) {
    if (memory_ == MAP_FAILED) FailSetUp("mmap");
  }
  SharedText(const SharedText&) = delete;
  SharedText& operator=(const SharedText&) = delete;
  ~SharedText() { munmap(memory_, kReportBytes); }

  void Set(const std::string& text) {
    std::memcpy(memory_, text.c_str(), std::min(text.size() + 1, kReportBytes - 1));
  }
  std::string Get() const { return static_cast<const char*>(memory_); }

 private:
  void* memory_;
};

// Keeps this thread, and the processes that it forks, on the CPU that it runs on.
class OneCpu {
 public:
  OneCpu() {
    const int cpu = sched_getcpu();
    if (cpu < 0 || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(cpu), &one);
    is_set_ = sched_setaffinity(0, sizeof one, &one) == 0;
  }
  OneCpu(const OneCpu&) = delete;
  OneCpu& operator=(const OneCpu&) = delete;
  ~OneCpu() {
    if (is_set_) sched_setaffinity(0, sizeof before_, &before_);
  }

 private:
  cpu_set_t before_{};
  bool is_set_ = false;
};

pid_t Start(const std::vector<long>& calls, SharedText& report,
            const std::function<std::string(const std::function<void()>& begin)>& code) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(kTimeoutSeconds);
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    int status = kReturned;
    try {
      report.Set(code([&] { InstallFilter(calls); }));
    } catch (const std::exception& e) {
      report.Set(e.what());
      status = kThrew;
    } catch (...) {
      status = kThrew;
    }
    _exit(status);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
    FailSetUp("cannot trace a child");
  }
  ptrace(PTRACE_SETOPTIONS, child, nullptr, kOptions);
  ptrace(PTRACE_CONT, child, nullptr, 0);
  return child;
}

// Makes the calls of this thread, and of the threads that it starts, stop no more. Needs
// CAP_SYS_ADMIN; without it they go on to stop.
void LetThrough(pid_t thread) {
  ptrace(PTRACE_SETOPTIONS, thread, nullptr, kOptions | PTRACE_O_SUSPEND_SECCOMP);
}

void Interfere(pid_t child, const Decide& decide, const InterceptedCall& call,
               user_regs_struct registers, InterceptedRun& run) {
  const int decision = decide(call);
  if (decision == 0) return;
  if (decision == kLetAllThrough) return LetThrough(call.thread);
  if (run.interferences++ == 0) run.first = call.Describe();
  if (decision == kKillChild) {
    run.killed = true;
    kill(child, SIGKILL);
    return;
  }
  // A call with an invalid number does nothing and leaves the result register unchanged.
  registers.orig_rax = static_cast<std::uint64_t>(-1);
  registers.rax = static_cast<std::uint64_t>(-decision);
  ptrace(PTRACE_SETREGS, call.thread, nullptr, &registers);
}

void HandleStop(pid_t child, pid_t thread, int status, const Decide& decide, InterceptedRun& run) {
  long signal = WSTOPSIG(status);
  if (status >> 16 == PTRACE_EVENT_SECCOMP) {
    user_regs_struct registers{};
    signal = 0;
    if (ptrace(PTRACE_GETREGS, thread, nullptr, &registers) == 0 && !run.killed) {
      const InterceptedCall call{
          thread,
          static_cast<long>(registers.orig_rax),
          {registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9}};
      Interfere(child, decide, call, registers, run);
    }
  } else if (status >> 16 != 0 || (thread != child && signal == SIGSTOP)) {
    signal = 0;  // A thread was created, or a new thread makes its first stop.
  }
  ptrace(PTRACE_CONT, thread, nullptr, signal);
}

}  // namespace

std::string InterceptedCall::Text(std::size_t i) const {
  std::string text(4096, '\0');
  iovec local = {text.data(), text.size()};
  // Read up to the end of the page first: the string may end there, and the next page may be
  // unmapped.
  const std::uint64_t address = arguments[i];
  local.iov_len = 4096 - address % 4096;
  iovec remote = {reinterpret_cast<void*>(address), local.iov_len};
  ssize_t n = process_vm_readv(thread, &local, 1, &remote, 1, 0);
  if (n < 0) return "?";
  if (std::memchr(text.data(), 0, static_cast<std::size_t>(n)) == nullptr) {
    iovec rest = {text.data() + n, text.size() - static_cast<std::size_t>(n)};
    remote = {reinterpret_cast<void*>(address + static_cast<std::uint64_t>(n)), rest.iov_len};
    process_vm_readv(thread, &rest, 1, &remote, 1, 0);
  }
  return text.c_str();
}

std::string InterceptedCall::PathOf(std::size_t i) const {
  std::error_code error;
  return std::filesystem::read_symlink(
      "/proc/" + std::to_string(thread) + "/fd/" + std::to_string(static_cast<int>(arguments[i])),
      error);
}

std::string InterceptedCall::Describe() const {
  const Known* known = Find(*this);
  if (known == nullptr) return "call " + std::to_string(number);
  std::string text = std::string(known->name) + "(";
  const auto path = [&](std::size_t i) {
    const std::string name = Text(i);
    if (i == 0 || name.starts_with('/') || static_cast<int>(arguments[i - 1]) == AT_FDCWD) {
      return name;
    }
    return PathOf(i - 1) + "/" + name;
  };
  if (WorksOnDescriptor(known->kind)) {
    text += PathOf(0);
  } else if (known->kind == Kind::kRename || known->kind == Kind::kLink) {
    const bool at = known->path == 1;
    text += path(known->path) + ", " + path(at ? 3 : 1);
  } else if (known->kind != Kind::kDescriptor) {
    text += path(known->path);
    if (known->kind == Kind::kOpen && (OpenFlags(*this) & O_CREAT) != 0) text += ", O_CREAT";
  }
  return text + ")";
}

InterceptedRun RunIntercepted(
    const std::vector<long>& calls, const Decide& decide,
    const std::function<std::string(const std::function<void()>& begin)>& code) {
  SharedText report;
  const OneCpu one_cpu;
  const pid_t child = Start(calls, report, code);
  InterceptedRun run;
  for (;;) {
    int status = 0;
    const pid_t thread = waitpid(-1, &status, __WALL);
    if (thread < 0 && errno == EINTR) continue;
    if (thread < 0) FailSetUp("lost a traced child");
    if (WIFSTOPPED(status)) {
      HandleStop(child, thread, status, decide, run);
    } else if (thread == child) {
      run.report = report.Get();
      if (WIFSIGNALED(status) && !run.killed) {
        run.crash = "signal " + std::to_string(WTERMSIG(status));
      } else if (WIFEXITED(status) && WEXITSTATUS(status) != kReturned) {
        run.crash = "status " + std::to_string(WEXITSTATUS(status)) + ": " + run.report;
      }
      return run;
    }
  }
}

const std::vector<long>& FileCalls() {
  static const std::vector<long> calls = NumbersOf([](long, Kind) { return true; });
  return calls;
}

std::vector<long> CallsThatMayChange() {
  return NumbersOf([](long, Kind kind) { return MayChange(kind); });
}

std::vector<long> CallsThatCanFailWith(int error) {
  return NumbersOf([&](long number, Kind kind) {
    // fstat may be made as newfstatat.
    return CanFailWith(number, kind, error) ||
           (kind == Kind::kStat && CanFailWith(number, Kind::kStatFd, error));
  });
}

bool MayChange(const InterceptedCall& call) {
  const Known* known = Find(call);
  if (known == nullptr || !MayChange(known->kind)) return false;
  switch (known->kind) {
    case Kind::kOpen:
      return (OpenFlags(call) & (O_CREAT | O_TRUNC)) != 0;
    case Kind::kWrite:
      return IsOnDisk(call.PathOf(0));
    case Kind::kControl:
      return SetsLock(call);
    default:
      return true;
  }
}

bool CanFailWith(const InterceptedCall& call, int error) {
  const Known* known = Find(call);
  if (known == nullptr) return false;
  const bool is_fstat = call.number == SYS_newfstatat && (call.arguments[3] & AT_EMPTY_PATH) != 0;
  const Kind kind = is_fstat ? Kind::kStatFd : known->kind;
  if (!CanFailWith(call.number, kind, error)) return false;
  // The sanitizers open these files themselves.
  if (kind == Kind::kOpen && call.Text(known->path).starts_with("/proc/self/")) return false;
  switch (error) {
    case EIO:
      return !WorksOnDescriptor(kind) || IsOnDisk(call.PathOf(0));
    case ENOSPC:
      if (kind == Kind::kOpen) return (OpenFlags(call) & O_CREAT) != 0;
      return (kind != Kind::kWrite && kind != Kind::kFlush) || IsOnDisk(call.PathOf(0));
    case EMFILE:
      return kind != Kind::kControl || call.arguments[1] == F_DUPFD ||
             call.arguments[1] == F_DUPFD_CLOEXEC;
    case ENOLCK:
      return kind != Kind::kControl || SetsLock(call);
    default:
      return true;
  }
}

bool NeedsSpace(const InterceptedCall& call) {
  // A rename within a directory reuses the directory entry that it frees.
  const Known* known = Find(call);
  return known != nullptr && known->kind != Kind::kRename && CanFailWith(call, ENOSPC);
}

}  // namespace msb::test
