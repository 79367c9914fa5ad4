#include "src/vmm/qmp_client.h"

#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/base/unix_socket.h"

namespace msb::vmm {
namespace {

constexpr std::string_view kClosed = "QEMU closed its control connection";

// A text that the other side chose, for a message; "?" if it is none.
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
  base::Throw(ErrorKind::kInternal, "QEMU refused {}: {}: {}", command, TextOf(error, "class"),
              TextOf(error, "desc"));
}

}  // namespace

QmpClient::QmpClient(const Context& ctx, base::UniqueFd socket, EventFunction on_event)
    : socket_(std::move(socket)), on_event_(std::move(on_event)) {
  const std::optional<std::string> line = ReceiveLine(ctx);
  if (!line) base::Throw(ErrorKind::kInternal, "{}", kClosed);
  // Only what begins with a greeting speaks the protocol, so nothing else may come before.
  if (!Parse(*line).contains("QMP")) Refuse("it did not greet");
  Execute(ctx, "qmp_capabilities");
}

base::Json QmpClient::Execute(const Context& ctx, const std::string& command,
                              const base::Json& arguments) {
  const std::uint64_t id = next_id_++;
  const std::string line = LineOf(command, arguments, id);
  unanswered_.insert(id);
  Send(ctx, line);
  for (;;) {
    std::optional<base::Json> reply = Receive(ctx);
    if (!reply) base::Throw(ErrorKind::kInternal, "{} before it answered {}", kClosed, command);
    if (TakeId(*reply) != id) continue;
    const auto error = reply->find("error");
    if (error != reply->end()) ThrowFailed(command, *error);
    return std::move(reply->at("return"));
  }
}

bool QmpClient::AwaitClose(const Context& ctx) {
  try {
    while (const auto reply = Receive(ctx)) TakeId(*reply);
    return true;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kCancelled) throw;
    return false;
  }
}

std::uint64_t QmpClient::TakeId(const base::Json& reply) {
  if (!reply.contains("error") && !reply.contains("return"))
    Refuse("it sent no reply and no event");
  const auto id = reply.find("id");
  // QEMU leaves the id out if it could not read the command.
  if (id == reply.end() || !id->is_number_unsigned() ||
      unanswered_.erase(id->get<std::uint64_t>()) == 0) {
    Refuse("it answered a command that it was not given");
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
    ctx.Check();  // Events could come without end.
  }
  return std::nullopt;
}

base::Json QmpClient::Parse(const std::string& line) {
  try {
    base::Json message = base::ParseJson(line);
    if (message.is_object()) return message;
  } catch (const std::invalid_argument& e) {
    Refuse(e.what());
  }
  Refuse("it sent no JSON object");
}

std::optional<std::string> QmpClient::ReceiveLine(const Context& ctx) {
  if (!socket_) base::Throw(ErrorKind::kInternal, "the control connection to QEMU was ended");
  std::array<char, 1 << 14> buffer;
  std::size_t searched = 0;
  for (;;) {
    const std::size_t end = received_.find('\n', searched);
    if (end != std::string::npos) {
      std::string line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return line;
    }
    searched = received_.size();
    if (searched > kMaxQmpMessageBytes) Refuse("it sent a message that is too long");
    const std::size_t room = kMaxQmpMessageBytes + 1 - searched;
    const std::size_t length = base::ReceiveSome(
        ctx, socket_.get(), std::span(buffer).first(std::min(buffer.size(), room)));
    if (length == 0) return std::nullopt;
    received_.append(buffer.data(), length);
  }
}

void QmpClient::Send(const Context& ctx, const std::string& line) {
  if (!socket_) base::Throw(ErrorKind::kInternal, "the control connection to QEMU was ended");
  try {
    if (base::SendAll(ctx, socket_.get(), line)) return;
  } catch (const Error&) {
    socket_.Reset(-1);  // What came after a part of a command would be taken for the rest of it.
    throw;
  }
  base::Throw(ErrorKind::kInternal, "{}", kClosed);
}

void QmpClient::Refuse(const std::string& why) {
  socket_.Reset(-1);
  base::Throw(ErrorKind::kInternal, "what answers is not QEMU, or a broken one: {}", why);
}

}  // namespace msb::vmm
