// SPDX-License-Identifier: Apache-2.0
//
// A QmpClient controls a QEMU process over a stream socket with QMP, QEMU's JSON protocol
// (docs/interop/qmp-spec.txt of QEMU).
//
// The other side is not trusted. If it sends a message that is not a JSON object, is longer than
// kMaxQmpMessageBytes or does not belong to the protocol, then Config::qemu.binary is not QEMU: the
// client closes the connection and throws kInvalidConfig.

#ifndef MSB_SRC_VMM_QMP_CLIENT_H_
#define MSB_SRC_VMM_QMP_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "msb/context.h"
#include "msb/error.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/vmm/line_reader.h"

namespace msb::vmm {

inline constexpr std::size_t kMaxQmpMessageBytes = 1 << 20;

// A QmpRefusal is thrown if QEMU replies to a command with an error. Its kind is kIO.
class QmpRefusal : public Error {
 public:
  using Error::Error;
};

// Must not be used by several threads at the same time.
class QmpClient {
 public:
  using EventFunction = std::function<void(const std::string& name, const base::Json& data)>;

  // Takes ownership of a connected, non-blocking socket, waits for the greeting and leaves the
  // negotiation mode. on_event, if not empty, is called for each event, in order, while the
  // constructor or a function below waits.
  // Throws kIO if the other side closes the connection.
  // Throws kInvalidConfig if the other side is not a QMP server.
  // Throws kCancelled if ctx ends first.
  QmpClient(const Context& ctx, base::UniqueFd socket, EventFunction on_event = {});

  // Executes a command and returns the value of "return" in its reply. Events that arrive before
  // the reply are passed to on_event. Replies to other commands are skipped: those to commands of
  // earlier calls that were cancelled, and those that QEMU owes to a client that ended before this
  // one connected. A reply that does not say which command it answers closes the connection
  // (kInvalidConfig).
  // Throws a QmpRefusal if the command fails. The message has the class and the description of the
  // error.
  // Throws kIO if the other side closes the connection meanwhile.
  // Throws kInvalidArgument if an argument is not UTF-8.
  // Throws kCancelled if ctx ends first. Whether QEMU executes the command is then unknown. Further
  // commands may be executed, unless ctx ended while this command was being sent; in that case the
  // connection is closed.
  base::Json Execute(const Context& ctx, const std::string& command, const base::Json& arguments);
  base::Json Execute(const Context& ctx, const std::string& command);  // Without arguments.

  // Passes events to on_event until the other side closes the connection, which QEMU does when it
  // ends. Returns false if the connection is still open when ctx is done. Never throws kCancelled.
  bool AwaitClose(const Context& ctx);

 private:
  // Returns the next message that is not an event, or nullopt at the end of the stream, even if the
  // stream ends within a message.
  std::optional<base::Json> Receive(const Context& ctx);
  // Returns the next line, without its end, or nullopt at the end of the stream.
  std::optional<std::string> ReceiveLine(const Context& ctx);
  void Send(const Context& ctx, const std::string& line);
  base::Json Parse(const std::string& line);
  // Waits for the message with which a QMP server greets, before which replies to the commands of
  // an earlier client may come.
  void AwaitGreeting(const Context& ctx);
  // Returns the id of the command that this reply answers. Refuses anything but a reply with an id.
  std::uint64_t IdOf(const base::Json& reply);
  // Closes the connection, and throws kInvalidConfig.
  [[noreturn]] void Refuse(const std::string& why);

  base::UniqueFd socket_;  // Empty once this side has closed the connection.
  EventFunction on_event_;
  LineReader reader_;
  // Begins at random, since replies to the commands of an earlier client have ids of that client.
  std::uint64_t next_id_;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QMP_CLIENT_H_
