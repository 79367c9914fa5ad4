// SPDX-License-Identifier: Apache-2.0

#include "src/base/orphan.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "src/base/fork.h"
#include "src/base/retry.h"
#include "src/base/throw.h"

namespace msb::base {

void ForkOrphan(std::string_view purpose, const std::function<void(int error)>& run) {
  // Handlers of this program must not run in the new process.
  sigset_t all;
  sigset_t old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  const ForkForProgram no_wait;
  const pid_t intermediate = fork();
  if (intermediate == 0) {
    const pid_t pid = fork();
    if (pid <= 0) run(pid < 0 ? errno : 0);
    _exit(0);
  }
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  if (intermediate < 0) ThrowErrno("fork a process for", purpose, error);
  // ECHILD: other code in this process, which waits for any child, has already reaped it.
  static_cast<void>(Retry([&] { return waitpid(intermediate, nullptr, 0); }));
}

}  // namespace msb::base
