// SPDX-License-Identifier: Apache-2.0
//
// Surrounds API calls. Defers log callbacks to the end of a call: a log callback may call the
// library, even for the same sandbox, so it must not run while the library holds a mutex or a lock
// on a directory, a stage or the index.

#ifndef MSB_SRC_BASE_CALL_SCOPE_H_
#define MSB_SRC_BASE_CALL_SCOPE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/blocked_signal.h"

namespace msb::base {

using LogFunction = std::function<void(std::string_view message)>;

// A CallScope represents one call of the public API on the current thread. It must be the first
// object in each function that may log. It keeps the messages that the thread logs during the call,
// and passes them on when the call returns or throws. Blocks SIGXFSZ, so that a call that reaches
// the limit of the size of files (RLIMIT_FSIZE) throws kIO and does not end the process. If calls
// are nested, the outermost scope does this.
class CallScope {
 public:
  CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;
  ~CallScope();

 private:
  friend LogFunction DeferredLog(LogFunction log);
  friend void LogOnce(std::string_view key, std::string_view message) noexcept;

  struct Message {
    std::shared_ptr<const LogFunction> log;
    std::string text;
  };

  // Keeps the message in the outermost scope of this thread. Logs it at once if there is none.
  static void Pass(const std::shared_ptr<const LogFunction>& log, std::string_view message);

  std::vector<Message> messages_;
  std::optional<BlockedSignal> file_size_signal_;
};

// Returns a function that passes each message on to log when the thread's CallScope ends, or at
// once if there is no scope. The returned function ignores exceptions that log throws, since a
// failure to log must not fail the call.
LogFunction DeferredLog(LogFunction log);

// Logs a message that concerns the whole process, such as a guarantee that a file system weakens,
// unless a message with this key has been logged before. Logs to the function that was last given
// to DeferredLog. Does nothing if all copies of the function that DeferredLog returned for it have
// been destroyed. Never throws.
void LogOnce(std::string_view key, std::string_view message) noexcept;

}  // namespace msb::base

#endif  // MSB_SRC_BASE_CALL_SCOPE_H_
