// SPDX-License-Identifier: Apache-2.0
//
// Recognizes the process of a VMM by a file in the sandbox's directory: the VMM has the file as its
// standard input, and with it holds the lock on the file. So no pid needs to be recorded: any
// program can see whether the VMM runs, and can end it. A file that a crash leaves behind is never
// mistaken for a VMM.

#ifndef MSB_EXAMPLES_VMM_PROCESS_H_
#define MSB_EXAMPLES_VMM_PROCESS_H_

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"

namespace example {

inline void Nap() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

// A DiskLock represents the right to use a sandbox's disk. The VMM holds it while it runs;
// otherwise, a program holds it during a call.
class DiskLock {
 public:
  explicit DiskLock(std::filesystem::path dir) : dir_(std::move(dir)), fd_(Open()) {}
  DiskLock(DiskLock&& other) noexcept
      : dir_(std::move(other.dir_)), fd_(std::exchange(other.fd_, -1)) {}
  ~DiskLock() {
    // A process that another thread is just starting may have a copy of the descriptor.
    const struct flock unlock = Whole(F_UNLCK);
    fcntl(fd_, F_OFD_SETLK, &unlock);
    if (fd_ >= 0) close(fd_);
  }

  // Returns true if the lock is held by another owner.
  bool IsTaken() const {
    struct flock lock = Whole(F_WRLCK);
    return fcntl(fd_, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  }

  // Takes the lock. Returns false if it is held by another owner.
  bool TryTake() {
    const struct flock lock = Whole(F_WRLCK);
    if (fcntl(fd_, F_OFD_SETLK, &lock) == 0) return true;
    if (errno == EAGAIN || errno == EACCES) return false;
    Fail("lock " + LockFile().string(), errno);
  }

  // Starts the VMM in a session of its own, and hands over the lock, which must have been taken.
  void HandTo(std::vector<std::string> command) {
    std::vector<char*> words;
    words.reserve(command.size() + 1);
    for (std::string& word : command) words.push_back(word.data());
    words.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, fd_, 0);
    posix_spawn_file_actions_addopen(&files, 1, LogFile().c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                     0666);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    pid_t pid = 0;
    const int error = posix_spawnp(&pid, words[0], &files, &attributes, words.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    if (error != 0) Fail("start " + command[0], error);
    close(std::exchange(fd_, -1));  // Not unlocked: the VMM holds the lock now.
    fd_ = Open();
    std::thread([pid] {  // So that the VMM leaves no zombie.
      while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
    })
        .detach();
  }

  // Takes the lock from the VMM by ending it: asks it to end, and kills it after the time-out.
  // Throws kCancelled if ctx ends before the time-out.
  // Throws kIO if the VMM still runs 30 s after it was first killed.
  void TakeBack(const msb::Context& ctx, std::chrono::milliseconds timeout) {
    if (timeout.count() > 0) Signal(SIGTERM);  // Or any request that makes your VMM end its guest.
    const msb::Context patience = ctx.WithTimeout(timeout);
    while (!TryTake() && !patience.Done()) Nap();
    if (!TryTake()) ctx.Check();
    const auto limit = msb::Context::Background().WithTimeout(std::chrono::seconds(30));
    for (; !TryTake(); Nap()) {
      if (limit.Done()) {
        throw msb::Error(msb::ErrorKind::kIO,
                         "the VMM that holds " + LockFile().string() +
                             " does not end; look at the kernel's log (dmesg)");
      }
      Signal(SIGKILL);
    }
  }

  // Returns the output of the VMM so far.
  std::string Log() const {
    std::ifstream file(LogFile());
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::filesystem::path LockFile() const { return dir_ / "vmm.lock"; }
  std::filesystem::path LogFile() const { return dir_ / "vmm.log"; }
  int Open() const { return open(LockFile().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666); }

  static struct flock Whole(short type) {
    struct flock lock {};
    lock.l_type = type;
    return lock;
  }

  [[noreturn]] static void Fail(const std::string& what, int error) {
    throw msb::Error(msb::ErrorKind::kIO,
                     "cannot " + what + ": " + std::generic_category().message(error));
  }

  // Sends a signal to every process that has the file as its standard input, which is also how
  // fuser(1) finds processes. Holds each by a pidfd meanwhile, so that a later process with its pid
  // never gets it.
  void Signal(int signal) const {
    for (const auto& process : std::filesystem::directory_iterator("/proc")) {
      const std::string name = process.path().filename();
      pid_t pid = 0;
      std::from_chars(name.data(), name.data() + name.size(), pid);
      const int handle = pid > 0 ? static_cast<int>(syscall(SYS_pidfd_open, pid, 0)) : -1;
      if (handle < 0) continue;
      std::error_code gone;
      if (std::filesystem::equivalent(process.path() / "fd/0", LockFile(), gone)) {
        syscall(SYS_pidfd_send_signal, handle, signal, nullptr, 0);
      }
      close(handle);
    }
  }

  std::filesystem::path dir_;
  int fd_;
};

}  // namespace example

#endif  // MSB_EXAMPLES_VMM_PROCESS_H_
