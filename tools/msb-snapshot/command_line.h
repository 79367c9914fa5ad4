// SPDX-License-Identifier: Apache-2.0
//
// Describes the commands and options of the program, for the man page and the completions.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_COMMAND_LINE_H_
#define MSB_TOOLS_MSB_SNAPSHOT_COMMAND_LINE_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace msb::program {

struct OptionInfo {
  std::vector<std::string> names;  // "-f", "--force"; empty for a positional argument.
  std::string value;               // "DIR", "raw|qcow2", the name of a positional; empty: a flag.
  std::string description;
  bool required = false;
  bool repeated = false;
};

struct CommandInfo {
  std::string name;
  std::vector<std::string> aliases;
  std::string description;
  std::vector<OptionInfo> options;  // Without --help.
  std::vector<OptionInfo> positionals;
  std::vector<CommandInfo> commands;  // Its own subcommands.

  // Returns the name and the aliases.
  std::vector<std::string> Names() const;
};

// Returns the description of a command and its subcommands. Hidden options are left out.
CommandInfo Describe(const CLI::App& app);

// The following functions return text for standard output.
std::string ManPage(const CommandInfo& program, const std::string& version);
std::string BashCompletion(const CommandInfo& program);
std::string ZshCompletion(const CommandInfo& program);
std::string FishCompletion(const CommandInfo& program);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_COMMAND_LINE_H_
