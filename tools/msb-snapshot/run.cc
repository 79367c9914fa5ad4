// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstring>
#include <sstream>
#include <string_view>
#include <vector>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/exit_code.h"
#include "tools/msb-snapshot/interrupt.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {

CLI::App* AddCommand(CLI::App& parent, Invocation& invocation, const std::string& name,
                     const std::string& description) {
  CLI::App* const command = parent.add_subcommand(name, description);
  AddCommonOptions(*command, invocation.session.options);
  return command;
}

namespace {

void AddCommands(CLI::App& app, Invocation& invocation) {
  AddCreate(app, invocation);
  AddList(app, invocation);
  AddInspect(app, invocation);
  AddRemove(app, invocation);
  AddRestore(app, invocation);
  AddSpace(app, invocation);
  AddTransfer(app, invocation);
  AddRegistry(app, invocation);
  AddFork(app, invocation);
  AddExec(app, invocation);
  AddTree(app, invocation);
  AddSandbox(app, invocation);
  AddDoctor(app, invocation);
  AddGenerate(app, invocation);
}

// Returns the most specific command that was given, or the program.
const CLI::App& GivenCommand(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  return *command;
}

// Returns "msb-snapshot sandbox create" for this command.
std::string CommandPath(const CLI::App& command) {
  const CLI::App* const parent = command.get_parent();
  return (parent == nullptr ? "" : CommandPath(*parent) + " ") + command.get_name();
}

// Returns how many characters must be inserted, removed, replaced or swapped with the next one to
// make one word of the other.
std::size_t EditDistance(std::string_view from, std::string_view to) {
  std::vector<std::vector<std::size_t>> cost(from.size() + 1,
                                             std::vector<std::size_t>(to.size() + 1));
  for (std::size_t i = 0; i <= from.size(); ++i) {
    for (std::size_t j = 0; j <= to.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      const std::size_t replaced = from[i - 1] == to[j - 1] ? 0 : 1;
      cost[i][j] =
          std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + replaced});
      if (i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost.back().back();
}

// Returns the message for a word that is not a command of parent. It names a command with a similar
// name.
std::string UnknownCommand(const CLI::App& parent, const std::string& word) {
  constexpr std::size_t kMostEdits = 2;
  std::string similar;
  std::size_t least = std::min(kMostEdits + 1, word.size());
  for (const CLI::App* const command : parent.get_subcommands({})) {
    const std::size_t distance = EditDistance(word, command->get_name());
    if (distance < least) similar = command->get_name();
    least = std::min(least, distance);
  }
  return fmt::format("unknown command '{}'{}", word,
                     similar.empty() ? "" : fmt::format("; did you mean '{}'?", similar));
}

// Returns the message for a command line that is invalid.
std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = GivenCommand(app);
  std::vector<std::string> extra = UnexpectedWords(app);
  const bool is_separated = std::erase(extra, "--") > 0;
  if (extra.empty()) {
    const bool has_command = command.get_parent() != nullptr;
    return is_separated && !has_command ? "unexpected '--'; put it after a command" : error.what();
  }
  const std::string& word = extra.front();
  if (!command.get_subcommands({}).empty() && !word.starts_with('-')) {
    return UnknownCommand(command, word);
  }
  const std::string_view step =
      command.get_name() == "exec" ? "; put -- before the command: exec SANDBOX -- COMMAND" : "";
  return fmt::format("{} '{}'{}", word.starts_with('-') ? "unknown option" : "unexpected argument",
                     word, step);
}

// Parses and runs the command line. Returns the exit code.
int Run(int argc, char** argv) {
  CLI::App app("Disk snapshots of microVM sandboxes.", "msb-snapshot");
  Invocation invocation;
  app.set_version_flag("--version", fmt::format("msb-snapshot {}", Version()));
  app.require_subcommand(0, 1);
  AddCommonOptions(app, invocation.session.options);
  AddCommands(app, invocation);
  try {
    ParseCommandLine(app, argc, argv);
    if (!invocation.run && !app.remaining().empty()) throw CLI::ExtrasError(app.remaining());
    if (!invocation.run) throw CLI::CallForHelp();
    return invocation.run();
  } catch (const CLI::Success& e) {
    std::ostringstream text;  // --help and --version.
    const int code = app.exit(e, text, text);
    Put(text.str());
    return code;
  } catch (const CLI::ParseError& e) {
    invocation.session.Tell(Color::kRed, "error", UsageMessage(app, e));
    Put(fmt::format("For help: {} --help\n", CommandPath(GivenCommand(app))), Stream::kError);
    return kUsage;
  } catch (const std::exception& e) {
    return invocation.session.Fail(e);
  }
}

// Writes what is buffered. Returns the exit code, given that of the command.
int FinishOutput(int code) {
  const int error = FlushOutput();
  if (error == 0) return code;
  if (error == EPIPE) return kBrokenPipe;
  Put(fmt::format("error: cannot write to standard output: {}\n", std::strerror(error)),
      Stream::kError);
  return code == kSuccess ? ExitCodeOf(ErrorKind::kIO) : code;
}

}  // namespace

int Main(int argc, char** argv) {
  OpenStandardStreams();
  std::setlocale(LC_ALL, "");
  WatchSignals();
  return FinishOutput(Run(argc, argv));
}

}  // namespace msb::program
