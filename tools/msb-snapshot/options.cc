// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

namespace msb::program {
namespace {

// Precedes a word or value that CLI11 would parse as a list: "[a,b]".
constexpr char kShield = '\x1f';

void Shield(std::vector<std::string>& words) {
  bool is_option_possible = true;  // Until "--".
  for (std::string& word : words) {
    is_option_possible = is_option_possible && word != "--";
    // "--option=value", or a word that is a value.
    const bool has_value = is_option_possible && word.starts_with("--");
    const std::size_t value = has_value ? word.find('=') + 1 : 0;
    if (word.substr(value).starts_with('[')) word.insert(value, 1, kShield);
  }
}

std::string Unshielded(const std::string& word) {
  return word.starts_with(kShield) ? word.substr(1) : word;
}

// Makes the arguments and options of all commands of app remove kShield.
void Unshield(CLI::App& app) {
  for (CLI::Option* const option : app.get_options()) {
    if (option->get_items_expected_max() > 0) option->transform(Unshielded);
  }
  for (CLI::App* const command : app.get_subcommands({})) Unshield(*command);
}

}  // namespace

void AddCommonOptions(CLI::App& command, CommonOptions& options) {
  command
      .add_option("--home", options.home, "Home directory. Default: MSB_HOME, or ~/.microsandbox")
      ->type_name(kDirectory)
      ->check(NotEmpty());
  command
      .add_option(
          "--backend", options.backend,
          "Default: MSB_BACKEND, or microsandbox if the home has the runtime's database, or "
          "else local")
      ->type_name("local|qemu|microsandbox");
  command.add_flag("--json", options.json, "Print one JSON document");
  command.add_flag("-q,--quiet", options.quiet, "Print nothing but errors");
}

CLI::Validator NotEmpty() {
  return CLI::Validator(
      [](const std::string& text) {
        return text.empty() ? std::string("it must not be empty") : std::string();
      },
      "");
}

CLI::Validator Between(std::uint64_t minimum, std::uint64_t maximum) {
  return CLI::Validator(
      [minimum, maximum](const std::string& text) {
        std::uint64_t number = 0;
        const char* const end = text.data() + text.size();
        const auto [last, error] = std::from_chars(text.data(), end, number);
        const bool fits = error == std::errc();
        if (last != end || error == std::errc::invalid_argument || (fits && number < minimum)) {
          return fmt::format("'{}' must be a number of at least {}", text, minimum);
        }
        if (fits && number <= maximum) return std::string();
        return fmt::format("'{}' is too large; the maximum is {}", text, maximum);
      },
      "");
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
      ->check(CLI::IsMember({"raw", "qcow2"}).description(""));
}

void AddPairsOption(CLI::App& command, const std::string& name, const std::string& description,
                    std::vector<std::string>& pairs) {
  command.add_option(name, pairs, description)
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
}

void AddLabelOption(CLI::App& command, std::vector<std::string>& labels,
                    const std::string& description) {
  AddPairsOption(command, "--label", description, labels);
}

std::map<std::string, std::string> ParsePairs(const std::string& name,
                                              const std::vector<std::string>& pairs) {
  std::map<std::string, std::string> result;
  for (const std::string& pair : pairs) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw CLI::ValidationError(name, fmt::format("'{}' must have the form KEY=VALUE", pair));
    }
    result[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return result;
}

std::map<std::string, std::string> ParseLabels(const std::vector<std::string>& labels) {
  auto result = ParsePairs("--label", labels);
  if (result.size() < labels.size()) {
    throw CLI::ValidationError("--label", "a key is given twice; give each key once");
  }
  return result;
}

void ParseCommandLine(CLI::App& app, int argc, char** argv) {
  Unshield(app);
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  Shield(words);
  std::reverse(words.begin(), words.end());  // As CLI11 wants them.
  app.parse(std::move(words));
}

std::vector<std::string> UnexpectedWords(const CLI::App& app) {
  std::vector<std::string> words = app.remaining(/*recurse=*/true);
  std::ranges::transform(words, words.begin(), Unshielded);
  return words;
}

}  // namespace msb::program
