// msb-snapshot: disk snapshots of microVM sandboxes on the command line.

#include <fmt/format.h>

#include <cerrno>
#include <clocale>
#include <cstring>

#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/exit_code.h"
#include "tools/msb-snapshot/interrupt.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {

namespace {

void AddCommonOptions(CLI::App& command, CommonOptions& options) {
  command
      .add_option("--home", options.home, "Home directory. Default: MSB_HOME, or ~/.microsandbox")
      ->type_name(kDirectory);
  command
      .add_option(
          "--backend", options.backend,
          "Default: MSB_BACKEND, or microsandbox if the home has the runtime's database, or "
          "else local")
      ->type_name("local|qemu|microsandbox");
  command.add_flag("--json", options.json, "Print one JSON document");
  command.add_flag("-q,--quiet", options.quiet, "Print nothing but errors");
}

}  // namespace

CLI::App* AddCommand(CLI::App& parent, Invocation& invocation, const std::string& name,
                     const std::string& description) {
  CLI::App* const command = parent.add_subcommand(name, description);
  AddCommonOptions(*command, invocation.session.options);
  return command;
}

void AddFormatOption(CLI::App& command, const std::string& name, const std::string& description,
                     std::function<void(DiskFormat)> set) {
  command
      .add_option_function<std::string>(
          name,
          [set = std::move(set)](const std::string& format) {
            set(format == "qcow2" ? DiskFormat::kQcow2 : DiskFormat::kRaw);
          },
          description)
      ->type_name("raw|qcow2")
      ->check(CLI::IsMember({"raw", "qcow2"}));
}

namespace {

void AddCommands(CLI::App& app, Invocation& invocation) {
  AddCreate(app, invocation);
  AddList(app, invocation);
  AddInspect(app, invocation);
  AddRemove(app, invocation);
  AddTransfer(app, invocation);
  AddFork(app, invocation);
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

// Parses and runs the command line. Returns the exit code.
int Run(int argc, char** argv) {
  CLI::App app("Disk snapshots of microVM sandboxes.", "msb-snapshot");
  Invocation invocation;
  app.set_version_flag("--version", fmt::format("msb-snapshot {}", Version()));
  app.require_subcommand(0, 1);
  AddCommonOptions(app, invocation.session.options);
  AddCommands(app, invocation);
  try {
    app.parse(argc, argv);
    if (!invocation.run) throw CLI::CallForHelp();
    return invocation.run();
  } catch (const CLI::Success& e) {
    return app.exit(e);  // --help and --version.
  } catch (const CLI::ParseError& e) {
    Put(fmt::format("error: {}\nFor help: {} --help\n", Printable(e.what()), CommandPath(app)),
        Stream::kError);
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
}  // namespace msb::program

int main(int argc, char** argv) {
  std::setlocale(LC_ALL, "");
  msb::program::WatchSignals();
  return msb::program::FinishOutput(msb::program::Run(argc, argv));
}
