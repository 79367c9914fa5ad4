// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/guest_agent.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "src/base/duration.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/unix_socket.h"

namespace msb::vmm {
namespace {

using base::Json;
using std::chrono::milliseconds;

// The byte that precedes the reply to guest-sync-delimited. It occurs in no JSON text. Sent to the
// agent, it ends what an earlier client has sent of a command.
constexpr char kDelimiter = '\xff';
constexpr std::size_t kMaxSyncReplyBytes = 1 << 10;
// The interval at which a synchronization is repeated, for an agent that starts while the port is
// in use by another program or that loses a command.
constexpr auto kSyncInterval = std::chrono::seconds(1);
// How long nothing may arrive before the state of the port is checked.
constexpr auto kSilence = milliseconds(500);
// The part of a command or reply for which the reply time-out counts.
constexpr std::size_t kPartBytes = 1 << 20;
constexpr int kThawTries = 5;

// Returns the number of bytes that the reply to a command may have. Only output is long.
std::size_t MaxReplyBytes(const std::string& command) {
  return command == "guest-exec-status" ? kMaxAgentMessageBytes : kMaxShortReplyBytes;
}

std::string CommandLine(const std::string& command, const Json& arguments) {
  Json message = {{"execute", command}};
  if (!arguments.empty()) message["arguments"] = arguments;
  try {
    return message.dump() + "\n";
  } catch (const Json::exception&) {
    base::Throw(ErrorKind::kInvalidArgument, "an argument of the guest agent's {} is not UTF-8",
                command);
  }
}

// Returns whether text, which may be anything, is the reply to the synchronization with this id.
bool IsSyncReply(const std::string& text, std::uint64_t id) {
  // Parsing takes much longer than the guest needs to send a line.
  if (text.find(std::to_string(id)) == std::string::npos) return false;
  try {
    const Json reply = base::ParseJson(text);
    return reply.is_object() && reply.size() == 1 && reply.value("return", Json()) == id;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

std::string MemberText(const Json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// Calls work. Returns false if work threw kCancelled although ctx is not done, because of a
// time-out of its own.
bool EndsInTime(const Context& ctx, const std::function<void()>& work) {
  try {
    work();
    return true;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled) throw;
    ctx.Check();
    return false;
  }
}

[[noreturn]] void ThrowRefused(const std::string& sandbox, const std::string& command,
                               const Json& error) {
  const std::string description = MemberText(error, "desc");
  const bool is_unknown = MemberText(error, "class") == "CommandNotFound" ||
                          description.find("has been disabled") != std::string::npos;
  throw AgentRefusal(
      is_unknown ? ErrorKind::kUnsupportedOperation : ErrorKind::kIO,
      fmt::format("the guest agent of sandbox '{}' refused {}: {}{}", sandbox, command,
                  base::Quoted(description),
                  is_unknown ? "; permit the command in the configuration of qemu-guest-agent in "
                               "the guest (/etc/qemu/qemu-ga.conf), or update the agent"
                             : "; look at its log in the guest"),
      description);
}

}  // namespace

GuestAgent::GuestAgent(base::UniqueFd socket, Options options)
    : socket_(std::move(socket)), options_(std::move(options)) {}

void GuestAgent::Sync(const Context& ctx, milliseconds timeout) {
  is_synchronized_ = false;
  const Context limited = ctx.WithTimeout(timeout);
  is_synchronized_ = EndsInTime(ctx, [&] {
    for (bool is_answered = false; !is_answered;) {
      const std::uint64_t id = NewMessageId();
      Send(limited, kDelimiter + CommandLine("guest-sync-delimited", {{"id", id}}));
      is_answered = EndsInTime(limited, [&] { AwaitSync(limited.WithTimeout(kSyncInterval), id); });
    }
  });
  if (!is_synchronized_) ThrowSilent(timeout);
}

void GuestAgent::AwaitSync(const Context& ctx, std::uint64_t id) {
  for (;;) {
    if (!reader_.SkipPast(ctx, socket_.get(), kDelimiter)) ThrowEnded();
    try {
      const auto line = reader_.Next(ctx, socket_.get(), kMaxSyncReplyBytes);
      if (!line) ThrowEnded();
      // If an earlier reply was cut off, the line has a delimiter in it.
      if (IsSyncReply(line->substr(line->rfind(kDelimiter) + 1), id)) return;
      refused_bytes_ += line->size();
    } catch (const std::length_error&) {
      // This is not the reply. The next delimiter is looked for in it.
    }
  }
}

Json GuestAgent::Execute(const Context& ctx, const std::string& command, const Json& arguments) {
  const auto is_frozen = [&] {
    try {
      return IsFrozen(ctx);
    } catch (const AgentRefusal&) {
      return false;
    }
  };
  try {
    return ExecuteOnce(ctx, command, arguments);
  } catch (const AgentRefusal& e) {
    if (e.kind() != ErrorKind::kUnsupportedOperation || !is_frozen()) throw;
  }
  Thaw(ctx);
  return ExecuteOnce(ctx, command, arguments);
}

Json GuestAgent::Execute(const Context& ctx, const std::string& command) {
  return Execute(ctx, command, Json::object());
}

Json GuestAgent::ExecuteOnce(const Context& ctx, const std::string& command,
                             const Json& arguments) {
  const std::string line = CommandLine(command, arguments);
  if (!is_synchronized_) Sync(ctx, options_.reply_timeout);
  is_synchronized_ = false;  // Until the reply has been read.
  SendInParts(ctx, command, line);
  Json reply = ParseReply(AwaitReply(ctx, command), command);
  is_synchronized_ = true;
  const auto error = reply.find("error");
  if (error != reply.end()) ThrowRefused(options_.sandbox, command, *error);
  return std::move(reply.at("return"));
}

std::uint64_t GuestAgent::Freeze(const Context& ctx) {
  const Json count = Execute(ctx, "guest-fsfreeze-freeze");
  if (!count.is_number_unsigned()) ThrowBroken("it did not report how many it has frozen");
  return count.get<std::uint64_t>();
}

std::uint64_t GuestAgent::Thaw(const Context& ctx) {
  std::uint64_t thawed = 0;
  for (int i = 0; i < kThawTries; ++i) {
    const Json count = ExecuteOnce(ctx, "guest-fsfreeze-thaw", Json::object());
    if (!count.is_number_unsigned()) ThrowBroken("it did not report how many it has thawed");
    thawed = std::max(thawed, count.get<std::uint64_t>());
    if (!IsFrozen(ctx)) return thawed;
  }
  base::Throw(ErrorKind::kIO,
              "the guest agent of sandbox '{}' reports that file systems are still frozen after {} "
              "attempts to thaw them; thaw them in the guest (fsfreeze --unfreeze)",
              options_.sandbox, kThawTries);
}

base::Message GuestAgent::ThawMessage() const {
  const std::uint64_t id = NewMessageId();
  return {.socket = socket_.get(),
          .bytes = kDelimiter + CommandLine("guest-fsfreeze-thaw", Json::object()) +
                   CommandLine("guest-sync-delimited", {{"id", id}}),
          .reply = std::to_string(id)};
}

bool GuestAgent::IsFrozen(const Context& ctx) {
  const Json status = ExecuteOnce(ctx, "guest-fsfreeze-status", Json::object());
  if (status == "frozen") return true;
  if (status != "thawed") ThrowBroken("it reported an unknown state of the file systems");
  return false;
}

void GuestAgent::Send(const Context& ctx, std::string_view bytes) {
  if (!base::SendAll(ctx, socket_.get(), bytes)) ThrowEnded();
}

void GuestAgent::SendInParts(const Context& ctx, const std::string& command,
                             std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, kPartBytes);
    const Context limited = ctx.WithTimeout(options_.reply_timeout);
    if (!EndsInTime(ctx, [&] { Send(limited, part); })) ThrowNoReply(command);
    bytes.remove_prefix(part.size());
  }
}

std::string GuestAgent::AwaitReply(const Context& ctx, const std::string& command) {
  const milliseconds slice = std::min(kSilence, options_.reply_timeout);
  bool is_closed = false;
  for (std::size_t parts = 0;; parts = reader_.pending_bytes() / kPartBytes) {
    const Context limited = ctx.WithTimeout(options_.reply_timeout);
    while (reader_.pending_bytes() / kPartBytes <= parts) {
      if (auto line = TryReceive(ctx, slice, MaxReplyBytes(command))) return *std::move(line);
      if (limited.Done()) ThrowNoReply(command);
      if (is_closed) {
        base::Throw(ErrorKind::kIO,
                    "the guest agent of sandbox '{}' ended before it replied to {}; look at its "
                    "log in the guest, and start it again",
                    options_.sandbox, command);
      }
      // The reply may have arrived since, so it is looked for once more.
      is_closed = options_.is_port_open && !options_.is_port_open(limited);
    }
  }
}

std::optional<std::string> GuestAgent::TryReceive(const Context& ctx, milliseconds timeout,
                                                  std::size_t max_bytes) {
  std::optional<std::string> line;
  try {
    EndsInTime(ctx, [&] {
      line = reader_.Next(ctx.WithTimeout(timeout), socket_.get(), max_bytes);
      if (!line) ThrowEnded();
    });
  } catch (const std::length_error& e) {
    ThrowBroken(fmt::format("it sent {}", e.what()));
  }
  return line;
}

Json GuestAgent::ParseReply(const std::string& line, const std::string& command) {
  try {
    Json reply = base::ParseJson(line);
    if (reply.is_object() && reply.contains("return") != reply.contains("error")) return reply;
  } catch (const std::invalid_argument& e) {
    ThrowBroken(fmt::format("it sent a malformed reply to {}: {}", command, e.what()));
  }
  ThrowBroken(fmt::format("its reply to {} is neither a result nor an error", command));
}

void GuestAgent::ThrowEnded() const {
  base::Throw(ErrorKind::kIO,
              "sandbox '{}' ended while its guest agent was in use; look at console.log and "
              "qemu.log in the directory of the sandbox",
              options_.sandbox);
}

void GuestAgent::ThrowBroken(std::string_view what) const {
  base::Throw(ErrorKind::kIO,
              "the program that answers as the guest agent of sandbox '{}' is not qemu-ga or is "
              "broken: {}; install qemu-guest-agent in the guest, or restart it",
              options_.sandbox, what);
}

void GuestAgent::ThrowNoReply(const std::string& command) const {
  base::Throw(ErrorKind::kIO,
              "the guest agent of sandbox '{}' did not reply to {} within {}; look at its log in "
              "the guest, and restart it",
              options_.sandbox, command, base::FormatDuration(options_.reply_timeout));
}

void GuestAgent::ThrowSilent(milliseconds timeout) const {
  const std::uint64_t other = reader_.skipped_bytes() + refused_bytes_;
  base::Throw(
      ErrorKind::kUnsupportedOperation,
      "the guest agent of sandbox '{}' did not answer within {}{}; install qemu-guest-agent in "
      "the guest and start it, or wait until the guest has booted",
      options_.sandbox, base::FormatDuration(timeout),
      other == 0 ? ""
                 : fmt::format(", but its port sent {} of other data", base::Count(other, "byte")));
}

}  // namespace msb::vmm
