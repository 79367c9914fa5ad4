// SPDX-License-Identifier: Apache-2.0

#include "src/ops/exec.h"

#include <string_view>

#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::ops {
namespace {

using base::Quoted;
using base::Throw;

void CheckExecText(std::string_view what, std::string_view text) {
  if (text.find('\0') != std::string_view::npos) {
    Throw(ErrorKind::kInvalidArgument, "{} '{}' contains a NUL byte", what, Quoted(text));
  }
  if (!base::IsUtf8(text)) {
    Throw(ErrorKind::kInvalidArgument, "{} '{}' is not UTF-8; pass bytes in the input", what,
          Quoted(text));
  }
}

void CheckVariable(const std::string& name, const std::string& value) {
  CheckExecText("the name of the variable", name);
  CheckExecText("the value of a variable", value);
  if (!name.empty() && name.find('=') == std::string::npos) return;
  Throw(ErrorKind::kInvalidArgument,
        "the name of the variable '{}' is invalid: it must not be empty or contain '='",
        Quoted(name));
}

void CheckCommand(const std::vector<std::string>& command, const ExecOptions& options) {
  if (command.empty() || command.front().empty()) {
    Throw(ErrorKind::kInvalidArgument,
          "the command is empty; pass the name of a program and its arguments");
  }
  for (const std::string& word : command) CheckExecText("the argument of a command", word);
  for (const auto& [name, value] : options.env) CheckVariable(name, value);
  CheckExecText("the user", options.user);
  CheckExecText("the directory", options.cwd);
  if (options.cwd.empty() || options.cwd.starts_with('/')) return;
  Throw(ErrorKind::kInvalidArgument,
        "the directory '{}' is invalid: it must be an absolute path in the guest",
        Quoted(options.cwd));
}

}  // namespace

ExecResult ExecInSandbox(const Context& ctx, const ClientState& client, const std::string& sandbox,
                         const std::vector<std::string>& command, const ExecOptions& options) {
  CheckCommand(command, options);
  try {
    return client.backend->Exec(ctx, sandbox, command, options);
  } catch (const Error& e) {
    const auto left = ctx.TimeLeft();
    if (e.kind() != ErrorKind::kCancelled || !left || left->count() > 0) throw;
    Throw(ErrorKind::kCancelled,
          "'{}' in sandbox '{}' did not end within the time allowed (deadline exceeded); set a "
          "longer deadline",
          Quoted(command.front()), sandbox);
  }
}

}  // namespace msb::ops
