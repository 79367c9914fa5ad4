// SPDX-License-Identifier: Apache-2.0
//
// exec: runs a command in the guest of a sandbox.

#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/terminal.h"

namespace msb::program {
namespace {

// A limit that keeps input without end from filling the memory. Backends may take less.
constexpr std::size_t kMaxInputBytes = 1 << 30;

struct GuestCommand {
  std::string sandbox = {};
  std::vector<std::string> words = {};
  std::vector<std::string> variables = {};
  ExecOptions options = {};
  std::int64_t timeout_seconds = 0;  // 0: no limit.
  bool has_input = false;
};

int Exec(Session& session, GuestCommand& command) {
  Context ctx = session.context();
  if (command.timeout_seconds != 0) {
    ctx = ctx.WithTimeout(std::chrono::seconds(command.timeout_seconds));
  }
  const SandboxHandle sandbox = GetSandbox(ctx, command.sandbox, session.client());
  if (command.has_input) command.options.input = ReadInput(ctx, kMaxInputBytes);
  const ExecResult result = sandbox.Exec(ctx, command.words, command.options);
  if (session.options.json) {
    session.Print(
        {{{"exit_code", result.exit_code}, {"out", result.out}, {"err", result.err}}, ""});
  } else {
    Put(result.out);
    Put(result.err, Stream::kError);
  }
  return result.exit_code;
}

}  // namespace

void AddExec(CLI::App& app, Invocation& invocation) {
  Session& session = invocation.session;
  CLI::App* const exec =
      AddCommand(app, invocation, "exec", "Run a command in the guest of a running sandbox");
  const auto command = std::make_shared<GuestCommand>();
  exec->add_option(kSandbox, command->sandbox, "Name of the sandbox")->type_name("")->required();
  exec->add_option("COMMAND", command->words, "The program and its arguments, after --")
      ->type_name("")
      ->required();
  AddPairsOption(*exec, "--env", "Set a variable in the command's environment; may be repeated",
                 command->variables);
  exec->add_option("--cwd", command->options.cwd, "Directory of the command, in the guest")
      ->type_name("PATH");
  exec->add_option("--user", command->options.user, "User of the guest that runs the command")
      ->type_name("USER");
  AddNumberOption(*exec, "--timeout", command->timeout_seconds,
                  "Seconds after which the command is ended. Default: no limit", 1)
      ->type_name("SECONDS");
  exec->add_flag("-i,--stdin", command->has_input,
                 "Pass standard input to the command, which starts when the input has ended");
  exec->callback([&, command] {
    command->options.env = ParsePairs("--env", command->variables);
    invocation.run = [&session, command] { return Exec(session, *command); };
  });
}

}  // namespace msb::program
