// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>

#include "tools/msb-snapshot/command_line.h"
#include "tools/msb-snapshot/exit_code.h"

namespace msb::program {
namespace {

// Escapes text for roff: hyphens are meant literally, and a line must not begin with a request.
std::string Roff(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\') {
      result += "\\e";
    } else if (c == '-') {
      result += "\\-";
    } else {
      if (result.empty() && (c == '.' || c == '\'')) result += "\\&";
      result += c;
    }
  }
  return result;
}

std::string Bold(std::string_view text) { return fmt::format("\\fB{}\\fR", Roff(text)); }
std::string Italic(std::string_view text) { return fmt::format("\\fI{}\\fR", Roff(text)); }

std::string Synopsis(const std::string& path, const CommandInfo& command) {
  std::string line = Bold(path);
  for (const OptionInfo& option : command.options) {
    if (option.required) line += fmt::format(" {} {}", Bold(option.names[0]), Italic(option.value));
  }
  line += " [" + Italic("options") + "]";
  for (const OptionInfo& argument : command.positionals) {
    const std::string name = Italic(argument.value) + (argument.repeated ? "..." : "");
    line += argument.required ? " " + name : fmt::format(" [{}]", name);
  }
  return line + "\n";
}

std::string Item(const OptionInfo& option) {
  std::string names;
  for (const std::string& name : option.names) names += (names.empty() ? "" : ", ") + Bold(name);
  const std::string title = option.names.empty()
                                ? Italic(option.value)
                                : names + (option.value.empty() ? "" : " " + Italic(option.value));
  return fmt::format(".TP\n{}\n{}\n", title, Roff(option.description));
}

bool IsCommon(const OptionInfo& option) {
  const std::string& name = option.names.back();
  return name == "--home" || name == "--backend" || name == "--json" || name == "--quiet";
}

std::string Section(const std::string& path, const CommandInfo& command) {
  std::string text = ".SS ";
  text += Synopsis(path, command) + Roff(command.description) + ".\n";
  for (const std::string& alias : command.aliases) {
    text += fmt::format("Alias: {}.\n", Bold(alias));
  }
  for (const OptionInfo& argument : command.positionals) text += Item(argument);
  for (const OptionInfo& option : command.options) {
    if (!IsCommon(option)) text += Item(option);
  }
  return text;
}

std::string Commands(const std::string& prefix, const CommandInfo& command) {
  std::string text;
  for (const CommandInfo& child : command.commands) {
    const std::string path = prefix + child.name;
    text += child.commands.empty() ? Section(path, child) : Commands(path + " ", child);
  }
  return text;
}

std::string CommonSection(const CommandInfo& program) {
  std::string text = ".SH OPTIONS\nEvery command has these options:\n";
  for (const OptionInfo& option : program.options) {
    if (IsCommon(option)) text += Item(option);
  }
  return text;
}

std::string ExitStatus() {
  std::string text = ".SH EXIT STATUS\n";
  for (const ExitCode& code : ExitCodes()) {
    text += fmt::format(".TP\n{}\n{}{}\n", Bold(std::to_string(code.code)), Roff(code.meaning),
                        code.name.empty() ? "" : fmt::format(" ({})", Roff(code.name)));
  }
  return text;
}

}  // namespace

std::string ManPage(const CommandInfo& program, const std::string& version) {
  return fmt::format(".TH MSB\\-SNAPSHOT 1 \"\" \"msb {}\" \"User Commands\"\n", Roff(version)) +
         ".SH NAME\nmsb\\-snapshot \\- disk snapshots of microVM sandboxes\n"
         ".SH SYNOPSIS\n.B msb\\-snapshot\n.I command\n[\\fIoptions\\fR] [\\fIarguments\\fR]\n"
         ".SH DESCRIPTION\n"
         "Creates, verifies and moves disk snapshots of microVM sandboxes, and creates sandboxes "
         "from them. Shares homes, snapshots and archives with the microsandbox runtime, releases "
         "0.5.5 to 0.7.\n"
         ".PP\n"
         "A snapshot is given by its name, its path (which contains a slash, or begins with a dot "
         "or a tilde), its digest, or the beginning of a digest that no other snapshot shares. A "
         "command that takes several names processes all of them and reports each.\n"
         ".PP\n"
         "Progress is shown on standard error: as a bar if it is a terminal, and otherwise as a "
         "line every 10 seconds.\n"
         ".PP\n"
         "Ctrl\\-C cancels a command, which then changes nothing and leaves nothing behind, with "
         "these exceptions. A command that takes several names does not undo what it has done for "
         "earlier names, and prune does not restore snapshots that it has removed. Pull and push "
         "keep what they have transferred, so that the next call continues. Import, pull and "
         "sandbox create keep image files that they have added to the cache, and sandbox create "
         "and fork keep new directories of the home. Sandbox stop may have asked the guest to shut "
         "down, and exec does not undo what the command has done in the guest. Export may have "
         "written the beginning of the archive to a pipe. Another Ctrl\\-C, more than a second "
         "later, ends the program immediately.\n" +
         CommonSection(program) + ".SH COMMANDS\n" + Commands("", program) + ExitStatus() +
         ".SH ENVIRONMENT\n"
         ".TP\n.B MSB_HOME\nThe home directory. Default: ~/.microsandbox\n"
         ".TP\n.B MSB_BACKEND\nThe backend: local, qemu or microsandbox.\n"
         ".TP\n.B MSB_PATH\nThe msb program of the microsandbox runtime.\n"
         ".TP\n.B NO_COLOR\nIf it is set and not empty, the output has no colors.\n"
         ".SH EXAMPLES\n"
         "Snapshot a disk image, and make two sandboxes from the snapshot:\n.PP\n.nf\n"
         "msb\\-snapshot sandbox create base \\-\\-image debian.ext4\n"
         "msb\\-snapshot create clean \\-\\-from base \\-\\-integrity\n"
         "msb\\-snapshot fork clean worker\\-1 worker\\-2\n.fi\n.PP\n"
         "Copy a snapshot to another machine:\n.PP\n.nf\n"
         "msb\\-snapshot export \\-\\-with\\-image clean \\- | ssh host msb\\-snapshot import \\-\n"
         ".fi\n";
}

}  // namespace msb::program
