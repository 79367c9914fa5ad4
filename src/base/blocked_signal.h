// SPDX-License-Identifier: Apache-2.0
//
// Keeps a failing system call from ending the process by a signal.

#ifndef MSB_SRC_BASE_BLOCKED_SIGNAL_H_
#define MSB_SRC_BASE_BLOCKED_SIGNAL_H_

#include <signal.h>

#include <ctime>

namespace msb::base {

// A BlockedSignal blocks a signal that the kernel sends to the thread whose system call fails, such
// as SIGPIPE or SIGXFSZ. The call then only returns its error. The destructor discards the signal
// if it was raised meanwhile, and restores the signal mask. It must run in the same thread. Threads
// that are started meanwhile inherit the blocked signal.
class BlockedSignal {
 public:
  explicit BlockedSignal(int signal) : signal_(signal) {
    sigemptyset(&set_);
    sigaddset(&set_, signal);
    sigset_t pending;
    sigemptyset(&pending);
    sigpending(&pending);
    was_pending_ = sigismember(&pending, signal) == 1;
    pthread_sigmask(SIG_BLOCK, &set_, &previous_);
  }
  BlockedSignal(const BlockedSignal&) = delete;
  BlockedSignal& operator=(const BlockedSignal&) = delete;
  ~BlockedSignal() {
    constexpr timespec kNoWait{};
    while (!was_pending_ && sigtimedwait(&set_, nullptr, &kNoWait) == signal_) {
    }
    pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
  }

 private:
  const int signal_;
  sigset_t set_{};
  sigset_t previous_{};
  bool was_pending_ = false;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_BLOCKED_SIGNAL_H_
