// SPDX-License-Identifier: Apache-2.0

#ifndef MSB_TESTS_SUPPORT_EVENT_H_
#define MSB_TESTS_SUPPORT_EVENT_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace msb::test {

// Something that a test waits for, or lets a server wait for.
class Event {
 public:
  void Set() {
    const std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }

  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return set_; });
  }

  // Returns false if the event does not happen within this time.
  bool WaitFor(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [&] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_EVENT_H_
