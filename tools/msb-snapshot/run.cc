// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/run.h"

#include <fmt/format.h>

#include <cerrno>
#include <clocale>
#include <cstring>

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

// Returns "msb-snapshot sandbox create" for the most specific command that was given.
std::string CommandPath(const CLI::App& app) {
  std::string path = app.get_name();
  for (const CLI::App* command = &app; !command->get_subcommands().empty();) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  return path;
}

// Returns the message for a command line that is invalid.
std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> extra = app.remaining();
  if (app.get_subcommands().empty() && !extra.empty() && !extra.front().starts_with('-')) {
    return fmt::format("unknown command '{}'", extra.front());
  }
  return error.what();
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
    if (!invocation.run) throw CLI::CallForHelp();
    return invocation.run();
  } catch (const CLI::Success& e) {
    return app.exit(e);  // --help and --version.
  } catch (const CLI::ParseError& e) {
    invocation.session.Tell(Color::kRed, "error", UsageMessage(app, e));
    Put(fmt::format("For help: {} --help\n", CommandPath(app)), Stream::kError);
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
