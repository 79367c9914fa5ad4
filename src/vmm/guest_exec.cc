// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/guest_exec.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "src/base/base64.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/vmm/guest_script.h"

namespace msb::vmm {
namespace {

using base::Json;
using base::Quoted;
using base::Throw;
using std::chrono::milliseconds;

// The agent reads messages of at most 64 MiB, and Base64 takes 4 bytes for 3.
constexpr std::size_t kMaxInputBytes = std::size_t{32} << 20;
// The interval at which the agent is asked whether a command has ended: first, and at most.
constexpr auto kFirstInterval = milliseconds(1);
constexpr auto kMaxPollInterval = milliseconds(200);
// How long the agent may take to report the end of a command that was killed.
constexpr auto kEndTime = milliseconds(500);
// How long another client may use the agent, or the agent be restarted, while a command runs.
constexpr auto kReopenTimeout = std::chrono::seconds(60);
// How long ending a command may take whose context has ended.
constexpr auto kGuestKillTimeout = std::chrono::seconds(5);

constexpr int kMaxExitCode = 255;
constexpr int kMaxSignal = 64;
constexpr int kShellSignalBase = 128;

// A command that runs in a guest.
struct RunningCommand {
  const GuestAddress& guest;
  std::string program;
  std::int64_t pid = 0;
};

// Sleeps, but not past the end of ctx, nor longer than until another client waits for the session.
void Pause(const Context& ctx, const AgentSession& session, milliseconds time) {
  const Context limited = ctx.WithTimeout(time);
  while (!limited.Done() && !session.HasWaiter()) {
    const auto left = std::chrono::ceil<milliseconds>(*limited.TimeLeft());
    std::this_thread::sleep_for(std::min(left, milliseconds(20)));
  }
}

[[noreturn]] void ThrowBrokenExec(const RunningCommand& command, std::string_view what) {
  Throw(ErrorKind::kIO,
        "the guest agent of sandbox '{}' broke the protocol while '{}' ran: {}; update "
        "qemu-guest-agent in the guest, or restart it",
        command.guest.sandbox, Quoted(command.program), what);
}

// Returns the arguments of guest-exec.
Json GuestExecArguments(const std::string& token, const std::vector<std::string>& command,
                        const ExecOptions& options) {
  Json arguments = {{"capture-output", true}};
  if (NeedsScript(options)) {
    arguments["path"] = "/bin/sh";
    arguments["arg"] = ScriptArguments(token, command, options);
  } else {
    arguments["path"] = command.front();
    arguments["arg"] = std::vector<std::string>(command.begin() + 1, command.end());
  }
  if (!options.input.empty()) arguments["input-data"] = base::Base64Encode(options.input);
  return arguments;
}

std::int64_t StartInGuest(const Context& ctx, AgentSession& session, const RunningCommand& command,
                          const Json& arguments) {
  try {
    const Json reply = session->Execute(ctx, "guest-exec", arguments);
    const Json pid = reply.is_object() ? reply.value("pid", Json()) : Json();
    if (!pid.is_number_unsigned() || pid == 0) ThrowBrokenExec(command, "it reported no process");
    return pid.get<std::int64_t>();
  } catch (const AgentRefusal& e) {
    if (e.kind() != ErrorKind::kIO) throw;
    Throw(ErrorKind::kInvalidConfig,
          "the guest of sandbox '{}' cannot execute '{}': {}; install the program in the guest, or "
          "correct its name",
          command.guest.sandbox, Quoted(arguments.at("path").get<std::string>()),
          Quoted(e.description()));
  }
}

// Returns what the command has written to "out" or "err".
std::string OutputOf(const RunningCommand& command, const Json& status, const std::string& stream) {
  if (status.value(stream + "-truncated", Json()) == true) {
    Throw(ErrorKind::kIO,
          "'{}' in sandbox '{}' wrote more than the guest agent keeps, 16 MiB; let it write to a "
          "file in the guest",
          Quoted(command.program), command.guest.sandbox);
  }
  const auto data = status.find(stream + "-data");
  if (data == status.end()) return {};
  if (!data->is_string()) ThrowBrokenExec(command, "it sent output that is not text");
  auto output = base::Base64Decode(data->get_ref<const std::string&>());
  if (!output) ThrowBrokenExec(command, "it sent output that is not Base64");
  return *std::move(output);
}

// Returns a number of a status, or nullopt if it is absent.
std::optional<int> NumberOf(const RunningCommand& command, const Json& status, const char* key,
                            int max) {
  const auto number = status.find(key);
  if (number == status.end()) return std::nullopt;
  if (!number->is_number_unsigned() || number->get<std::uint64_t>() > static_cast<unsigned>(max)) {
    ThrowBrokenExec(command, fmt::format("it sent an impossible value of '{}'", key));
  }
  return number->get<int>();
}

// Returns the result of the command, or nullopt if it still runs.
std::optional<ExecResult> TryFinish(const Context& ctx, AgentSession& session,
                                    const RunningCommand& command) {
  Json status;
  try {
    status = session->Execute(ctx, "guest-exec-status", {{"pid", command.pid}});
  } catch (const AgentRefusal& e) {
    Throw(ErrorKind::kIO,
          "the result of '{}' in sandbox '{}' is lost: its guest agent was restarted meanwhile ({})"
          "; check in the guest whether the command still runs, and run it again",
          Quoted(command.program), command.guest.sandbox, Quoted(e.description()));
  }
  if (!status.is_object() || !status.value("exited", Json()).is_boolean()) {
    ThrowBrokenExec(command, "it did not report whether the command has ended");
  }
  if (!status.at("exited").get<bool>()) return std::nullopt;
  const auto signal = NumberOf(command, status, "signal", kMaxSignal);
  const auto code = NumberOf(command, status, "exitcode", kMaxExitCode);
  if (!signal && !code) ThrowBrokenExec(command, "it reported no exit code");
  return ExecResult{.exit_code = signal ? kShellSignalBase + *signal : *code,
                    .out = OutputOf(command, status, "out"),
                    .err = OutputOf(command, status, "err")};
}

// Waits until the command has ended, patience is done, or another client waits for the session. In
// the last two cases, returns nullopt.
std::optional<ExecResult> AwaitInSession(const Context& ctx, AgentSession& session,
                                         const RunningCommand& command, const Context& patience) {
  for (milliseconds interval = kFirstInterval;;
       interval = std::min(interval * 2, kMaxPollInterval)) {
    if (auto result = TryFinish(ctx, session, command)) return result;
    Pause(ctx, session, interval);
    ctx.Check();
    if (patience.Done() || session.HasWaiter()) return std::nullopt;
  }
}

// Starts the command, sets its pid, and waits until it has ended. Keeps the session as long as no
// other client needs it: while no client is connected, the agent sleeps most of the time, and
// hardly reads the output of its commands.
ExecResult StartAndAwait(const Context& ctx, RunningCommand& command, const Json& arguments,
                         milliseconds start_timeout) {
  for (milliseconds timeout = start_timeout;; timeout = kReopenTimeout) {
    AgentSession session = OpenAgent(ctx, command.guest, timeout);
    if (command.pid == 0) command.pid = StartInGuest(ctx, session, command, arguments);
    auto result = AwaitInSession(ctx, session, command, Context::Background());
    if (result) return *std::move(result);
  }
}

// Kills a command whose context has ended, as far as that is possible, and lets the agent forget
// both.
void KillInGuest(const RunningCommand& command) {
  const Context ctx = Context::Background().WithTimeout(kGuestKillTimeout);
  try {
    AgentSession session = OpenAgent(ctx, command.guest, kGuestKillTimeout);
    // After it has ended, another process may have its PID.
    if (TryFinish(ctx, session, command)) return;
    RunningCommand kill{.guest = command.guest, .program = "kill"};
    kill.pid =
        StartInGuest(ctx, session, kill,
                     {{"path", "/bin/sh"},
                      {"arg", {"-c", "kill -KILL \"$1\"", "sh", std::to_string(command.pid)}}});
    for (const RunningCommand& ending : {kill, command}) {
      AwaitInSession(ctx, session, ending, ctx.WithTimeout(kEndTime));
    }
  } catch (const Error&) {
    // The agent is gone, or the guest has no shell.
  }
}

}  // namespace

ExecResult ExecInGuest(const Context& ctx, const GuestAddress& guest,
                       const std::vector<std::string>& command, const ExecOptions& options,
                       milliseconds start_timeout) {
  if (options.input.size() > kMaxInputBytes) {
    Throw(ErrorKind::kInvalidArgument,
          "the input of '{}' has {} bytes, but the guest agent takes at most {}; copy it to the "
          "guest in parts, or share a directory (extra_arguments)",
          Quoted(command.front()), options.input.size(), kMaxInputBytes);
  }
  const std::string token = "msb-" + base::RandomSuffix();
  const Json arguments = GuestExecArguments(token, command, options);
  RunningCommand running{.guest = guest, .program = command.front()};
  try {
    ExecResult result = StartAndAwait(ctx, running, arguments, start_timeout);
    ThrowIfScriptFailed(result, token, guest.sandbox, command.front(), options);
    return result;
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled && running.pid != 0) KillInGuest(running);
    throw;
  }
}

}  // namespace msb::vmm
