// SPDX-License-Identifier: Apache-2.0
//
// Protects the state that calls share from fork(). A forked process has one thread, and a copy of
// the memory as it was at that moment: a mutex that another thread held stays locked forever, and
// data that another thread was changing stays half changed. Code that shares state between calls
// therefore enters a ForkSafeSection before it locks or changes that state, and fork() waits until
// no thread is in one.

#ifndef MSB_SRC_BASE_FORK_H_
#define MSB_SRC_BASE_FORK_H_

#include <atomic>
#include <cstdint>
#include <memory>

namespace msb::base {

// While a thread is in a ForkSafeSection, fork() in another thread waits, for up to 2 s. Sections
// may be nested. Code in a section must neither wait for a thread that is not in a section, nor
// call user code.
class ForkSafeSection {
 public:
  ForkSafeSection();
  ForkSafeSection(const ForkSafeSection&) = delete;
  ForkSafeSection& operator=(const ForkSafeSection&) = delete;
  ~ForkSafeSection();
};

// Returns the fork generation of this process, which differs from that of its parent. State that
// carries another generation belongs to a process that this one was forked from.
std::uint64_t ForkGeneration();

// Returns true if this process was forked while a thread was in a ForkSafeSection: either another
// thread, which stayed in the section for longer than fork() waits, or the thread that called
// fork(). If it returns true, shared state must not be used.
bool ForkInterruptedSection();

// While a ForkForProgram exists, fork() in its thread does not wait, since the new process only
// executes a program.
class ForkForProgram {
 public:
  ForkForProgram();
  ForkForProgram(const ForkForProgram&) = delete;
  ForkForProgram& operator=(const ForkForProgram&) = delete;
  ~ForkForProgram();
};

// Keeps an object until the process ends. Use it for objects that must not be destroyed because
// they belong to threads of a process that this process was forked from.
void KeepForever(std::shared_ptr<const void> object);

// A Lazy holds a value that is created on first use and never destroyed, so that destructors of
// static objects and handlers of std::atexit can use it. Unlike a static variable in a function, it
// has no lock that a forked process could find locked. Several threads may create a value at the
// same time; the first value is kept.
template <typename T>
class Lazy {
 public:
  constexpr Lazy() = default;

  T& Get() {
    T* value = value_.load(std::memory_order_acquire);
    return value != nullptr ? *value : Keep(std::make_unique<T>());
  }

  template <typename Make>
  T& Get(const Make& make) {
    T* value = value_.load(std::memory_order_acquire);
    return value != nullptr ? *value : Keep(std::make_unique<T>(make()));
  }

 private:
  T& Keep(std::unique_ptr<T> made) {
    T* value = nullptr;
    if (value_.compare_exchange_strong(value, made.get(), std::memory_order_acq_rel)) {
      value = made.release();
    }
    return *value;
  }

  std::atomic<T*> value_ = nullptr;
};

}  // namespace msb::base

#endif  // MSB_SRC_BASE_FORK_H_
