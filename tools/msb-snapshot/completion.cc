// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <functional>

#include "tools/msb-snapshot/command_line.h"

namespace msb::program {
namespace {

// Calls visit with the path of each command that has no subcommands, such as {sandbox, create}.
void ForEachCommand(const CommandInfo& command, const std::vector<const CommandInfo*>& path,
                    const std::function<void(const std::vector<const CommandInfo*>& path)>& visit) {
  for (const CommandInfo& child : command.commands) {
    std::vector<const CommandInfo*> next = path;
    next.push_back(&child);
    if (child.commands.empty()) {
      visit(next);
    } else {
      ForEachCommand(child, next, visit);
    }
  }
}

std::string Join(const std::vector<std::string>& words, std::string_view separator) {
  return fmt::format("{}", fmt::join(words, separator));
}

std::vector<std::string> NamesOf(const std::vector<CommandInfo>& commands) {
  std::vector<std::string> names;
  for (const CommandInfo& command : commands) {
    for (const std::string& name : command.Names()) names.push_back(name);
  }
  return names;
}

// Returns all spellings of a path: {"sandbox remove", "sandbox rm"}.
std::vector<std::string> Spellings(const std::vector<const CommandInfo*>& path) {
  std::vector<std::string> result = {""};
  for (const CommandInfo* command : path) {
    std::vector<std::string> longer;
    for (const std::string& prefix : result) {
      for (const std::string& name : command->Names()) {
        longer.push_back(prefix.empty() ? name : fmt::format("{} {}", prefix, name));
      }
    }
    result = std::move(longer);
  }
  return result;
}

// Returns the words of "raw|qcow2", separated by spaces; nothing for "DIR".
std::string Choices(std::string value) {
  if (value.find('|') == std::string::npos) return {};
  std::ranges::replace(value, '|', ' ');
  return value;
}

// Returns the bash command that offers these words.
std::string BashWords(const std::vector<std::string>& words) {
  return fmt::format("_msb_snapshot_offer < <(printf '%s\\n' {})", Join(words, " "));
}

// Returns the bash command that completes a value.
std::string BashValues(const std::string& value) {
  if (const std::string choices = Choices(value); !choices.empty()) return BashWords({choices});
  if (value == "SNAPSHOT") {
    return "[[ $cur != */* ]] || _msb_snapshot_files -d; "
           "_msb_snapshot_offer < <(_msb_snapshot_names snapshots)";
  }
  if (value == "SANDBOX") return "_msb_snapshot_offer < <(_msb_snapshot_names sandboxes)";
  if (value == "DIR") return "_msb_snapshot_files -d";
  return value == "FILE" ? "_msb_snapshot_files -f" : ":";
}

std::string BashCase(const std::vector<const CommandInfo*>& path) {
  const CommandInfo& command = *path.back();
  std::vector<std::string> patterns;
  for (const std::string& spelling : Spellings(path)) patterns.push_back("'" + spelling + "'");
  std::vector<std::string> options = {"--help"};
  std::string values;
  for (const OptionInfo& option : command.options) {
    options.insert(options.end(), option.names.begin(), option.names.end());
    if (option.value.empty()) continue;
    values += fmt::format("        {}) {}; return ;;\n", Join(option.names, "|"),
                          BashValues(option.value));
  }
  std::string positionals;
  for (const OptionInfo& argument : command.positionals) {
    positionals += fmt::format("      {}\n", BashValues(argument.value));
  }
  return fmt::format(
      "    {})\n      case $prev in\n{}      esac\n"
      "      [[ $cur != -* ]] || {{ {}; return; }}\n{}"
      "      ;;\n",
      Join(patterns, "|"), values, BashWords(options), positionals);
}

// Quotes text for a zsh or fish string in single quotes.
std::string Quoted(std::string_view text, std::string_view escaped_quote) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'') {
      result += escaped_quote;
    } else {
      result += c;
    }
  }
  return result + "'";
}

std::string Zsh(std::string_view text) { return Quoted(text, "'\\''"); }
std::string Fish(std::string_view text) { return Quoted(text, "\\'"); }

// Returns the action of _arguments that completes a value.
std::string ZshValues(const std::string& value) {
  if (const std::string choices = Choices(value); !choices.empty()) return "(" + choices + ")";
  if (value == "SNAPSHOT") return "{compadd -- ${(f)\"$(_msb_snapshot_names snapshots)\"}}";
  if (value == "SANDBOX") return "{compadd -- ${(f)\"$(_msb_snapshot_names sandboxes)\"}}";
  if (value == "DIR") return "_files -/";
  return value == "FILE" ? "_files" : " ";
}

// Escapes the characters that end a part of a specification of _arguments.
std::string ZshText(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == ':' || c == '[' || c == ']') result += '\\';
    result += c;
  }
  return result;
}

std::string ZshCase(const std::vector<const CommandInfo*>& path) {
  const CommandInfo& command = *path.back();
  std::vector<std::string> patterns;
  for (const std::string& spelling : Spellings(path)) patterns.push_back(Zsh(spelling));
  std::string text = fmt::format("    {})\n      _arguments", Join(patterns, "|"));
  for (const OptionInfo& option : command.options) {
    for (const std::string& name : option.names) {
      std::string spec = fmt::format("{}[{}]", name, ZshText(option.description));
      if (!option.value.empty()) {
        spec += fmt::format(":{}:{}", ZshText(option.value), ZshValues(option.value));
      }
      text += fmt::format(" \\\n        {}", Zsh((option.repeated ? "*" : "") + spec));
    }
  }
  for (const OptionInfo& argument : command.positionals) {
    text += fmt::format(" \\\n        {}",
                        Zsh(fmt::format("{}:{}:{}", argument.repeated ? "*" : "",
                                        ZshText(argument.value), ZshValues(argument.value))));
  }
  return text + "\n      ;;\n";
}

std::string ZshCommands(const std::vector<CommandInfo>& commands) {
  std::string text;
  for (const CommandInfo& command : commands) {
    text += " " + Zsh(fmt::format("{}:{}", command.name, command.description));
  }
  return text;
}

std::string FishCommand(const std::vector<const CommandInfo*>& path) {
  const CommandInfo& command = *path.back();
  const std::string seen =
      path.size() == 1 ? fmt::format("__msb_snapshot_has {}; and not __msb_snapshot_has sandbox",
                                     Join(command.Names(), " "))
                       : fmt::format("__msb_snapshot_has {}; and __msb_snapshot_has {}",
                                     path[0]->name, Join(command.Names(), " "));
  std::string text;
  const auto add = [&](const std::string& rest) {
    text += fmt::format("complete -c msb-snapshot -n {} {}\n", Fish(seen), rest);
  };
  const auto values = [](const std::string& value) -> std::string {
    if (const std::string choices = Choices(value); !choices.empty())
      return " -xa " + Fish(choices);
    if (value == "SNAPSHOT") return " -xa '(__msb_snapshot_names snapshots)'";
    if (value == "SANDBOX") return " -xa '(__msb_snapshot_names sandboxes)'";
    if (value == "DIR") return " -xa '(__fish_complete_directories)'";
    return value == "FILE" ? " -rF" : " -x";
  };
  for (const OptionInfo& option : command.options) {
    std::string names;
    for (const std::string& name : option.names) {
      names += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    }
    add(fmt::format("{}{} -d {}", names.substr(1), option.value.empty() ? "" : values(option.value),
                    Fish(option.description)));
  }
  for (const OptionInfo& argument : command.positionals) {
    if (argument.value != "NAME") add(values(argument.value).substr(1));
  }
  return text;
}

}  // namespace

std::string BashCompletion(const CommandInfo& program) {
  std::string cases;
  ForEachCommand(program, {}, [&](const auto& path) { cases += BashCase(path); });
  std::string groups;
  for (const CommandInfo& command : program.commands) {
    if (command.commands.empty()) continue;
    groups += fmt::format("    {}) {} ;;\n", command.name, BashWords(NamesOf(command.commands)));
  }
  std::vector<std::string> words = NamesOf(program.commands);
  words.insert(words.end(), {"--help", "--version", "--home", "--backend"});
  return fmt::format(
      "# Completes the command line of msb-snapshot in bash.\n"
      "_msb_snapshot_names() {{ msb-snapshot --generate \"$1\" \"${{given[@]}}\" 2>/dev/null; }}\n"
      "# Offers the lines of standard input that begin with the current word, quoted.\n"
      "_msb_snapshot_offer() {{\n"
      "  local line quoted\n"
      "  while IFS= read -r line; do\n"
      "    printf -v quoted %q \"$line\"\n"
      "    [[ $line != \"$cur\"* && $quoted != \"$cur\"* ]] || COMPREPLY+=(\"$quoted\")\n"
      "  done\n"
      "}}\n"
      "# Offers files (-f) or directories (-d), which bash quotes and marks.\n"
      "_msb_snapshot_files() {{\n"
      "  local line\n"
      "  compopt -o filenames 2>/dev/null\n"
      "  while IFS= read -r line; do COMPREPLY+=(\"$line\"); done < <(compgen \"$1\" -- \"$cur\")\n"
      "}}\n"
      "_msb_snapshot() {{\n"
      "  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}\n"
      "  local command= word value i given=()\n"
      "  COMPREPLY=()\n"
      "  # The command, and the options that select its home and backend.\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    word=${{COMP_WORDS[i]}}\n"
      "    case $word in\n"
      "      --home|--backend)\n"
      "        [[ ${{COMP_WORDS[i + 1]}} != = ]] || ((i++))\n"
      "        value=${{COMP_WORDS[++i]}}\n"
      "        ((i >= COMP_CWORD)) || given+=(\"$word\" \"${{value/#\\~/$HOME}}\") ;;\n"
      "      -*) ;;\n"
      "      *) [[ -n $command && $command != sandbox ]] || command+=${{command:+ }}$word ;;\n"
      "    esac\n"
      "  done\n"
      "  case $command in\n"
      "    '')\n"
      "      case $prev in\n"
      "        --home) _msb_snapshot_files -d; return ;;\n"
      "        --backend) {}; return ;;\n"
      "      esac\n"
      "      {}\n"
      "      ;;\n"
      "{}{}  esac\n}}\n"
      "complete -F _msb_snapshot msb-snapshot\n",
      BashWords({Choices("local|qemu|microsandbox")}), BashWords(words), groups, cases);
}

std::string ZshCompletion(const CommandInfo& program) {
  std::string cases;
  ForEachCommand(program, {}, [&](const auto& path) { cases += ZshCase(path); });
  std::string groups;
  for (const CommandInfo& command : program.commands) {
    if (command.commands.empty()) continue;
    groups += fmt::format("    {}) commands=({}); _describe command commands ;;\n", command.name,
                          ZshCommands(command.commands).substr(1));
  }
  return fmt::format(
      "#compdef msb-snapshot\n"
      "# Completes the command line of msb-snapshot in zsh.\n"
      "_msb_snapshot_names() {{ msb-snapshot --generate \"$1\" $given 2>/dev/null }}\n"
      "_msb_snapshot() {{\n"
      "  local -a commands given\n"
      "  local i\n"
      "  # The options that select the home and the backend.\n"
      "  for ((i = 2; i < CURRENT - 1; i++)); do\n"
      "    [[ $words[i] != --(home|backend) ]] || given+=($words[i] ${{(Q)~words[i + 1]}})\n"
      "  done\n"
      "  while (( CURRENT > 3 )) && [[ $words[2] == --(home|backend) ]]; do\n"
      "    words[2,3]=(); (( CURRENT -= 2 ))\n"
      "  done\n"
      "  local command=$words[2]\n"
      "  if (( CURRENT == 2 )); then\n"
      "    commands=({})\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  shift words; (( CURRENT-- ))\n"
      "  if [[ $command == sandbox ]] && (( CURRENT > 2 )); then\n"
      "    command+=\" $words[2]\"; shift words; (( CURRENT-- ))\n"
      "  fi\n"
      "  case $command in\n{}{}  esac\n}}\n"
      "_msb_snapshot \"$@\"\n",
      ZshCommands(program.commands).substr(1), groups, cases);
}

std::string FishCompletion(const CommandInfo& program) {
  std::string text =
      "# Completes the command line of msb-snapshot in fish.\n"
      "function __msb_snapshot_names\n"
      "    set -l words (commandline -opc)\n"
      "    set -l given\n"
      "    for i in (seq 2 (math (count $words) - 1))\n"
      "        if contains -- $words[$i] --home --backend\n"
      "            set -a given $words[$i] $words[(math $i + 1)]\n"
      "        end\n"
      "    end\n"
      "    msb-snapshot --generate $argv[1] $given 2>/dev/null\n"
      "end\n"
      "# Unlike __fish_seen_subcommand_from of fish 4.0, compares complete words.\n"
      "function __msb_snapshot_has\n"
      "    for word in (commandline -opc)[2..-1]\n"
      "        contains -- $word $argv; and return 0\n"
      "    end\n"
      "    return 1\n"
      "end\n"
      "complete -c msb-snapshot -f\n";
  for (const CommandInfo& command : program.commands) {
    text += fmt::format("complete -c msb-snapshot -n __fish_use_subcommand -a {} -d {}\n",
                        command.name, Fish(command.description));
    for (const CommandInfo& child : command.commands) {
      const std::string names = Join(NamesOf(command.commands), " ");
      const std::string condition =
          fmt::format("__msb_snapshot_has {}; and not __msb_snapshot_has {}", command.name, names);
      text += fmt::format("complete -c msb-snapshot -n {} -a {} -d {}\n", Fish(condition),
                          child.name, Fish(child.description));
    }
  }
  ForEachCommand(program, {}, [&](const auto& path) { text += FishCommand(path); });
  return text;
}

}  // namespace msb::program
