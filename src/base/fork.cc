// SPDX-License-Identifier: Apache-2.0

#include "src/base/fork.h"

#include <pthread.h>

#include <chrono>
#include <thread>
#include <utility>

#include "src/base/owned_descriptor.h"

namespace msb::base {
namespace {

constexpr auto kLongestWait = std::chrono::seconds(2);
constexpr auto kPause = std::chrono::microseconds(100);

// Atomics, since a mutex and a condition variable could not be used in the new process if another
// thread waited for them.
constinit std::atomic<int> threads_inside{0};
constinit std::atomic<int> pending_forks{0};
constinit std::atomic<std::uint64_t> generation{0};
constinit std::atomic<bool> interrupted{false};

thread_local int depth = 0;
thread_local bool for_program = false;
// Whether the last fork() of this thread gave up waiting for other threads to leave their sections.
thread_local bool gave_up = false;

int OwnSections() { return depth > 0 ? 1 : 0; }

void BeforeFork() {
  if (for_program) return;
  ++pending_forks;
  const auto end = std::chrono::steady_clock::now() + kLongestWait;
  gave_up = false;
  while (threads_inside > OwnSections()) {
    gave_up = std::chrono::steady_clock::now() >= end;
    if (gave_up) return;
    std::this_thread::sleep_for(kPause);
  }
}

void AfterForkInParent() {
  if (!for_program) --pending_forks;
}

void AfterForkInChild() {
  if (for_program) return;
  // The state that the thread that called fork() was changing is half changed here too.
  // threads_inside does not decide, because it also counts threads that were about to enter a
  // section when the fork was announced, and go back.
  if (gave_up || depth > 0) interrupted = true;
  threads_inside = OwnSections();
  pending_forks = 0;
  ++generation;
  DropWhatParentOwns();
}

// Registered when the library is loaded, so that no thread can fork between its first use and the
// registration.
[[maybe_unused]] const int registered =
    pthread_atfork(BeforeFork, AfterForkInParent, AfterForkInChild);

struct Kept {
  std::shared_ptr<const void> object;
  Kept* next = nullptr;
};
// The head of a list, which keeps the objects reachable for leak checkers.
constinit std::atomic<Kept*> last_kept{nullptr};

}  // namespace

ForkSafeSection::ForkSafeSection() {
  if (depth++ > 0) return;
  // Enter first and check for forks afterwards. BeforeFork announces the fork first and checks for
  // sections afterwards, so at least one of the two sees the other.
  for (++threads_inside; pending_forks > 0; ++threads_inside) {
    --threads_inside;
    std::this_thread::sleep_for(kPause);
  }
}

ForkSafeSection::~ForkSafeSection() {
  if (--depth == 0) --threads_inside;
}

std::uint64_t ForkGeneration() { return generation; }
bool ForkInterruptedSection() { return interrupted; }

ForkForProgram::ForkForProgram() { for_program = true; }
ForkForProgram::~ForkForProgram() { for_program = false; }

void KeepForever(std::shared_ptr<const void> object) {
  auto kept = std::make_unique<Kept>(Kept{std::move(object), last_kept});
  while (!last_kept.compare_exchange_weak(kept->next, kept.get())) {
  }
  static_cast<void>(kept.release());
}

}  // namespace msb::base
