// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/interrupt.h"

#include <signal.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace msb::program {
namespace {

// How long signals after the first one count as the same request. timeout(1) signals the process
// and then its group, and the end of a terminal is reported by the kernel and by the shell.
constexpr auto kEcho = std::chrono::seconds(1);

std::stop_source& Source() {
  static auto* const source = new std::stop_source;
  return *source;
}

std::atomic<int> first_signal = 0;

sigset_t WatchedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    // A signal that is ignored, as nohup(1) ignores SIGHUP, stays ignored.
    struct sigaction action {};
    sigaction(number, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&signals, number);
  }
  return signals;
}

void WaitForSignals(const sigset_t& signals) {
  int number = 0;
  if (sigwait(&signals, &number) != 0) return;
  first_signal = number;
  Source().request_stop();
  const auto first = std::chrono::steady_clock::now();
  do {
    if (sigwait(&signals, &number) != 0) return;
  } while (std::chrono::steady_clock::now() - first < kEcho);
  signal(number, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  raise(number);
}

}  // namespace

void WatchSignals() {
  // Unlike SIG_IGN, a handler is not inherited by the programs that the library starts.
  signal(SIGPIPE, [](int) {});
  signal(SIGXFSZ, [](int) {});
  const sigset_t signals = WatchedSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] { WaitForSignals(signals); }).detach();
}

std::stop_token Interrupted() { return Source().get_token(); }

int InterruptingSignal() { return first_signal; }

}  // namespace msb::program
