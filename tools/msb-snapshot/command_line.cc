// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/command_line.h"

namespace msb::program {
namespace {

OptionInfo DescribeOption(const CLI::Option& option) {
  OptionInfo info{.names = {},
                  .value = option.get_type_name(),
                  .description = option.get_description(),
                  .required = option.get_required(),
                  .repeated = option.get_expected_max() > 1};
  for (const std::string& name : option.get_snames()) info.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) info.names.push_back("--" + name);
  if (info.names.empty()) info.value = option.get_single_name();
  if (option.get_type_size_max() == 0) info.value.clear();  // A flag.
  return info;
}

void AddOptions(const CLI::App& app, CommandInfo& info) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty() || option == app.get_help_ptr()) continue;
    OptionInfo described = DescribeOption(*option);
    (described.names.empty() ? info.positionals : info.options).push_back(std::move(described));
  }
}

}  // namespace

std::vector<std::string> CommandInfo::Names() const {
  std::vector<std::string> names = {name};
  names.insert(names.end(), aliases.begin(), aliases.end());
  return names;
}

CommandInfo Describe(const CLI::App& app) {
  CommandInfo info{.name = app.get_name(),
                   .aliases = app.get_aliases(),
                   .description = app.get_description(),
                   .options = {},
                   .positionals = {},
                   .commands = {}};
  AddOptions(app, info);
  for (const CLI::App* child : app.get_subcommands(nullptr)) {
    // Options that belong together form a subcommand without a name.
    if (child->get_name().empty()) {
      AddOptions(*child, info);
    } else {
      info.commands.push_back(Describe(*child));
    }
  }
  return info;
}

}  // namespace msb::program
