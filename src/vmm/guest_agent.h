// SPDX-License-Identifier: Apache-2.0
//
// A GuestAgent talks to QEMU's guest agent (qemu-ga), which runs in the guest of a sandbox, over
// the socket of its virtio-serial port (docs/interop/qemu-ga-ref of QEMU).
//
// The guest is not trusted. Memory and time are limited regardless of what it sends: a reply has at
// most kMaxShortReplyBytes, or kMaxAgentMessageBytes if it has the output of a command, and longer
// replies are refused or skipped. The port keeps what an earlier client has left in it, such as
// half of a reply, so each series of commands begins with a synchronization that skips all of that.

#ifndef MSB_SRC_VMM_GUEST_AGENT_H_
#define MSB_SRC_VMM_GUEST_AGENT_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "msb/context.h"
#include "msb/error.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/last_words.h"
#include "src/vmm/line_reader.h"

namespace msb::vmm {

// The agent keeps at most 16 MiB of each output of a command, and sends both outputs in one message
// in Base64, which takes 4 bytes for 3.
inline constexpr std::size_t kMaxAgentMessageBytes = std::size_t{48} << 20;
// The replies to all commands but guest-exec-status are short.
inline constexpr std::size_t kMaxShortReplyBytes = std::size_t{64} << 10;

// How long the agent may take to reply to a command, and for each MiB of output or of a command:
// without an accelerator, a guest may send less than 1 MiB in a second.
inline constexpr auto kAgentReplyTimeout = std::chrono::seconds(30);

// An AgentRefusal is thrown if the agent replies to a command with an error. Its kind is
// kUnsupportedOperation if the agent does not have or does not permit the command, and else kIO.
class AgentRefusal : public Error {
 public:
  AgentRefusal(ErrorKind kind, const std::string& message, std::string description)
      : Error(kind, message), description_(std::move(description)) {}

  // Returns the agent's own message, which may be anything.
  const std::string& description() const { return description_; }

 private:
  std::string description_;
};

// Must not be used by several threads at the same time. No other client may be connected to the
// same port.
//
// In addition to what the comments below say, every function
// throws kIO if QEMU closes the connection, if the agent does not reply within the reply time-out
//   or closes its port meanwhile, or if a reply is malformed or too long;
// throws kUnsupportedOperation as Sync does;
// throws kCancelled if ctx ends first. The agent may execute the command nevertheless.
// After any of these, the next function begins with another synchronization.
class GuestAgent {
 public:
  struct Options {
    std::string sandbox = {};  // The name of the sandbox, for messages.
    std::chrono::milliseconds reply_timeout = kAgentReplyTimeout;
    // Returns false if no process in the guest has the port open. Called about once a second while
    // a reply is awaited. Default: it is never known.
    std::function<bool(const Context& ctx)> is_port_open = {};
  };

  // Takes ownership of a connected, non-blocking socket. Sends nothing.
  GuestAgent(base::UniqueFd socket, Options options);

  // Waits until the agent answers, and skips all that it has sent to earlier clients. The functions
  // below call it, with the reply time-out, if that is necessary.
  // Throws kUnsupportedOperation if the agent does not answer within timeout.
  void Sync(const Context& ctx, std::chrono::milliseconds timeout);

  // Executes a command and returns the value of "return" in the agent's reply. If the agent refuses
  // the command because file systems are frozen, thaws them and tries again: only a client that
  // ended before it could thaw them leaves them frozen.
  // Throws AgentRefusal if the reply is an error.
  // Throws kInvalidArgument if an argument is not UTF-8.
  base::Json Execute(const Context& ctx, const std::string& command, const base::Json& arguments);
  base::Json Execute(const Context& ctx, const std::string& command);  // Without arguments.

  // Freezes all file systems of the guest that can be frozen, after writing their cached data, and
  // returns their number. File systems that are already frozen are thawed first. The caller must
  // call Thaw soon, even if this call fails, and must keep other clients out until then.
  // Throws AgentRefusal if the agent cannot or may not freeze.
  std::uint64_t Freeze(const Context& ctx);
  // Thaws all file systems that Freeze has frozen, and returns how many were still frozen. Has no
  // effect if none is frozen.
  // Throws AgentRefusal if the agent cannot thaw.
  std::uint64_t Thaw(const Context& ctx);
  // Returns the message by which another process thaws them, without a lock.
  base::Message ThawMessage() const;
  // Returns true if the agent has frozen file systems.
  bool IsFrozen(const Context& ctx);

 private:
  // Executes a command once, without thawing.
  base::Json ExecuteOnce(const Context& ctx, const std::string& command,
                         const base::Json& arguments);
  void Send(const Context& ctx, std::string_view bytes);
  // Sends a command, of which each MiB must be taken within the reply time-out.
  void SendInParts(const Context& ctx, const std::string& command, std::string_view bytes);
  // Skips bytes until the reply to the synchronization with this id.
  void AwaitSync(const Context& ctx, std::uint64_t id);
  // Returns the next message, which replies to command, and of which each MiB must arrive within
  // the reply time-out.
  std::string AwaitReply(const Context& ctx, const std::string& command);
  // Returns the next message, or nullopt if it is incomplete when timeout has passed.
  std::optional<std::string> TryReceive(const Context& ctx, std::chrono::milliseconds timeout,
                                        std::size_t max_bytes);
  base::Json ParseReply(const std::string& line, const std::string& command);

  [[noreturn]] void ThrowEnded() const;
  [[noreturn]] void ThrowBroken(std::string_view what) const;
  [[noreturn]] void ThrowNoReply(const std::string& command) const;
  [[noreturn]] void ThrowSilent(std::chrono::milliseconds timeout) const;

  base::UniqueFd socket_;
  const Options options_;
  LineReader reader_;
  bool is_synchronized_ = false;
  std::uint64_t refused_bytes_ = 0;  // In lines that were not the reply to a synchronization.
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_GUEST_AGENT_H_
