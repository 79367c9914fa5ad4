// A client of QMP, the JSON protocol that a QEMU process is controlled by
// (docs/interop/qmp-spec.txt of QEMU), over a stream socket.
//
// What comes from the other side is not trusted: a message that is no JSON object, is longer than
// kMaxQmpMessageBytes or does not belong to the protocol ends the connection with kInternal.

#ifndef MSB_SRC_VMM_QMP_CLIENT_H_
#define MSB_SRC_VMM_QMP_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "msb/context.h"
#include "src/base/file.h"
#include "src/base/json.h"

namespace msb::vmm {

inline constexpr std::size_t kMaxQmpMessageBytes = 1 << 20;

// Not safe for use by several threads.
class QmpClient {
 public:
  using EventFunction = std::function<void(const std::string& name, const base::Json& data)>;

  // Takes a connected, non-blocking socket, waits for the greeting and leaves the negotiation mode.
  // on_event, if not empty, is called for each event, in order, while a function below waits.
  // kInternal: the other side closed, or is no QMP server. kCancelled.
  QmpClient(const Context& ctx, base::UniqueFd socket, EventFunction on_event = {});

  // Executes a command and returns its "return". Events that arrive before are handed on. Replies
  // to earlier commands, whose calls were cancelled, are passed over; ones to no command are
  // refused. kInternal: the command failed (the message has the error's class and description), or
  // the other side closed meanwhile. kInvalidArgument: an argument is not UTF-8. kCancelled:
  // whether the command is executed is not known, but others may follow.
  base::Json Execute(const Context& ctx, const std::string& command,
                     const base::Json& arguments = base::Json::object());

  // Hands on events until the other side closes the connection, which QEMU does when it ends; false
  // if it has not when ctx is done. Never throws kCancelled.
  bool AwaitClose(const Context& ctx);

 private:
  // The next message that is no event; nothing at the end of the stream, which may be in the middle
  // of a message.
  std::optional<base::Json> Receive(const Context& ctx);
  // The next line, without its end; nothing at the end of the stream.
  std::optional<std::string> ReceiveLine(const Context& ctx);
  void Send(const Context& ctx, const std::string& line);
  base::Json Parse(const std::string& line);
  // The command that this answers, which is no longer unanswered then.
  std::uint64_t TakeId(const base::Json& reply);
  // Closes the connection, and throws kInternal.
  [[noreturn]] void Refuse(const std::string& why);

  base::UniqueFd socket_;  // Empty once the connection was ended from this side.
  EventFunction on_event_;
  std::string received_;                // Bytes of messages that were not taken yet.
  std::set<std::uint64_t> unanswered_;  // The ids of commands whose replies may still come.
  std::uint64_t next_id_ = 1;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_QMP_CLIENT_H_
