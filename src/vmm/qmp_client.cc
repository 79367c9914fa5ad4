// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qmp_client.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/unix_socket.h"

namespace msb::vmm {
namespace {

constexpr std::string_view kClosed = "QEMU has ended or closed its control connection";

// Returns a string that the other side chose, for a message. Returns "?" if the key is absent or
// its value is not a string.
std::string TextOf(const base::Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string()
             ? base::Quoted(found->get_ref<const std::string&>())
             : "?";
}

std::string LineOf(const std::string& command, const base::Json& arguments, std::uint64_t id) {
  base::Json message = {{"execute", command}, {"id", id}};
  if (!arguments.empty()) message["arguments"] = arguments;
  try {
    return message.dump() + "\r\n";
  } catch (const base::Json::exception&) {
    base::Throw(ErrorKind::kInvalidArgument, "an argument of QEMU's {} is not UTF-8", command);
  }
}

[[noreturn]] void ThrowFailed(const std::string& command, const base::Json& error) {
  throw QmpRefusal(
      ErrorKind::kIO,
      fmt::format("QEMU refused {}: {}: {}; see qemu.log in the directory of the sandbox", command,
                  TextOf(error, "class"), TextOf(error, "desc")));
}

}  // namespace

QmpClient::QmpClient(const Context& ctx, base::UniqueFd socket, EventFunction on_event)
    : socket_(std::move(socket)), on_event_(std::move(on_event)), next_id_(NewMessageId()) {
  AwaitGreeting(ctx);
  Execute(ctx, "qmp_capabilities");
}

void QmpClient::AwaitGreeting(const Context& ctx) {
  for (;;) {
    const std::optional<std::string> line = ReceiveLine(ctx);
    if (!line) {
      base::Throw(ErrorKind::kIO, "{} too early; see qemu.log in the directory of the sandbox",
                  kClosed);
    }
    const base::Json message = Parse(*line);
    if (message.contains("QMP")) return;
    if (!message.contains("id") || message.contains("event")) Refuse("it sent no greeting");
    IdOf(message);
  }
}

base::Json QmpClient::Execute(const Context& ctx, const std::string& command,
                              const base::Json& arguments) {
  const std::uint64_t id = next_id_++;
  const std::string line = LineOf(command, arguments, id);
  Send(ctx, line);
  for (;;) {
    std::optional<base::Json> reply = Receive(ctx);
    if (!reply) {
      base::Throw(ErrorKind::kIO,
                  "{} before it answered {}; see qemu.log in the directory of the sandbox", kClosed,
                  command);
    }
    if (IdOf(*reply) != id) continue;
    const auto error = reply->find("error");
    if (error != reply->end()) ThrowFailed(command, *error);
    return std::move(reply->at("return"));
  }
}

bool QmpClient::AwaitClose(const Context& ctx) {
  try {
    while (const auto reply = Receive(ctx)) IdOf(*reply);
    return true;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled) throw;
    return false;
  }
}

base::Json QmpClient::Execute(const Context& ctx, const std::string& command) {
  return Execute(ctx, command, base::Json::object());
}

std::uint64_t QmpClient::IdOf(const base::Json& reply) {
  if (!reply.contains("error") && !reply.contains("return")) {
    Refuse("it sent a message that is neither a reply nor an event");
  }
  const auto id = reply.find("id");
  // QEMU leaves the id out if it could not read the command.
  if (id == reply.end() || !id->is_number_unsigned()) {
    Refuse("it sent a reply that does not say which command it answers");
  }
  return id->get<std::uint64_t>();
}

std::optional<base::Json> QmpClient::Receive(const Context& ctx) {
  while (const std::optional<std::string> line = ReceiveLine(ctx)) {
    base::Json message = Parse(*line);
    const auto event = message.find("event");
    if (event == message.end()) return message;
    if (!event->is_string()) Refuse("it sent an event without a name");
    if (on_event_)
      on_event_(event->get<std::string>(), message.value("data", base::Json::object()));
  }
  return std::nullopt;
}

base::Json QmpClient::Parse(const std::string& line) {
  try {
    base::Json message = base::ParseJson(line);
    if (message.is_object()) return message;
  } catch (const std::invalid_argument& e) {
    Refuse(fmt::format("it sent a malformed message: {}", e.what()));
  }
  Refuse("it sent a message that is not a JSON object");
}

std::optional<std::string> QmpClient::ReceiveLine(const Context& ctx) {
  if (!socket_) {
    base::Throw(ErrorKind::kIO,
                "the control connection to QEMU was closed after an error: connect again");
  }
  try {
    return reader_.Next(ctx, socket_.get(), kMaxQmpMessageBytes);
  } catch (const std::length_error& e) {
    Refuse(fmt::format("it sent {}", e.what()));
  }
}

void QmpClient::Send(const Context& ctx, const std::string& line) {
  if (!socket_) {
    base::Throw(ErrorKind::kIO,
                "the control connection to QEMU was closed after an error: connect again");
  }
  try {
    if (base::SendAll(ctx, socket_.get(), line)) return;
  } catch (const Error&) {
    socket_.Reset(-1);  // QEMU would take the next command for the rest of this one.
    throw;
  }
  base::Throw(ErrorKind::kIO, "{} too early; see qemu.log in the directory of the sandbox",
              kClosed);
}

void QmpClient::Refuse(const std::string& why) {
  socket_.Reset(-1);
  base::Throw(
      ErrorKind::kInvalidConfig,
      "the program that answers is not QEMU or is broken: {}; set Config::qemu.binary to QEMU",
      why);
}

}  // namespace msb::vmm
