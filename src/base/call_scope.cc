// SPDX-License-Identifier: Apache-2.0

#include "src/base/call_scope.h"

#include <mutex>
#include <set>
#include <utility>

#include "src/base/fork.h"

namespace msb::base {
namespace {

// A plain pointer has no destructor, so it can be used while static objects are destroyed.
thread_local CallScope* outermost = nullptr;

void CallIgnoringExceptions(const LogFunction& log, std::string_view message) {
  try {
    log(message);
  } catch (...) {
  }
}

// The state of LogOnce, shared by all threads.
struct ProcessLog {
  std::mutex mutex;  // Guards the other members; locked only in a ForkSafeSection.
  std::weak_ptr<const LogFunction> log;  // The function that was last given to DeferredLog.
  std::set<std::string> logged;          // Keys of the messages that were logged.
};
constinit Lazy<ProcessLog> process_log;

}  // namespace

CallScope::CallScope() {
  if (outermost != nullptr) return;
  outermost = this;
  file_size_signal_.emplace(SIGXFSZ);
}

CallScope::~CallScope() {
  if (outermost != this) return;
  // A callback that calls the library gets a scope of its own.
  outermost = nullptr;
  file_size_signal_.reset();
  for (const Message& message : messages_) CallIgnoringExceptions(*message.log, message.text);
}

void CallScope::Pass(const std::shared_ptr<const LogFunction>& log, std::string_view message) {
  if (outermost == nullptr) {
    CallIgnoringExceptions(*log, message);
    return;
  }
  try {
    outermost->messages_.push_back({log, std::string(message)});
  } catch (const std::bad_alloc&) {
    // The message is dropped: a failure to log must not make the call fail.
  }
}

LogFunction DeferredLog(LogFunction log) {
  const auto shared = std::make_shared<const LogFunction>(std::move(log));
  {
    const ForkSafeSection section;
    ProcessLog& process = process_log.Get();
    const std::lock_guard lock(process.mutex);
    process.log = shared;
  }
  return [shared](std::string_view message) { CallScope::Pass(shared, message); };
}

void LogOnce(std::string_view key, std::string_view message) noexcept {
  try {
    std::shared_ptr<const LogFunction> log;
    {
      const ForkSafeSection section;
      ProcessLog& process = process_log.Get();
      const std::lock_guard lock(process.mutex);
      log = process.log.lock();
      if (!log || !process.logged.emplace(key).second) return;
    }
    CallScope::Pass(log, message);
  } catch (...) {
    // The message is dropped, as in Pass.
  }
}

}  // namespace msb::base
