// SPDX-License-Identifier: Apache-2.0
//
// The options that several commands have.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_OPTIONS_H_
#define MSB_TOOLS_MSB_SNAPSHOT_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/msb-snapshot/session.h"

namespace msb::program {

// The placeholders of positional arguments, from which the completions are derived.
inline constexpr const char* kSnapshot = "SNAPSHOT";
inline constexpr const char* kSandbox = "SANDBOX";
inline constexpr const char* kFile = "FILE";
inline constexpr const char* kDirectory = "DIR";

// Adds the options that every command has.
void AddCommonOptions(CLI::App& command, CommonOptions& options);

// Returns a check that a value is not empty, as "$DIR" is if the variable is not set.
CLI::Validator NotEmpty();

// Returns a check that a value is an integer between minimum and maximum, inclusive.
CLI::Validator Between(std::uint64_t minimum, std::uint64_t maximum);

template <typename Number>
constexpr std::uint64_t MaximumOf(const Number& /*type*/) {
  return static_cast<std::uint64_t>(std::numeric_limits<Number>::max());
}
template <typename Number>
constexpr std::uint64_t MaximumOf(const std::optional<Number>& /*type*/) {
  return MaximumOf(Number());
}

// Adds an option whose value is an integer of at least minimum that number can hold.
template <typename Number>
CLI::Option* AddNumberOption(CLI::App& command, const std::string& name, Number& number,
                             const std::string& description, std::uint64_t minimum) {
  return command.add_option(name, number, description)->check(Between(minimum, MaximumOf(number)));
}

// Adds an option whose value is "raw" or "qcow2".
void AddFormatOption(CLI::App& command, const std::string& name, const std::string& description,
                     std::function<void(DiskFormat)> set);

// Adds an option that may be repeated, and stores the values KEY=VALUE in pairs.
void AddPairsOption(CLI::App& command, const std::string& name, const std::string& description,
                    std::vector<std::string>& pairs);

// Returns the values by their keys. If a key is given several times, the last value counts. Throws
// CLI::ValidationError, which names the option, if a pair does not have the form KEY=VALUE.
std::map<std::string, std::string> ParsePairs(const std::string& name,
                                              const std::vector<std::string>& pairs);

// Do the same for the option --label.
void AddLabelOption(CLI::App& command, std::vector<std::string>& labels,
                    const std::string& description = "Add a label; may be repeated");
std::map<std::string, std::string> ParseLabels(const std::vector<std::string>& labels);

// Parses the command line. A word such as "[a,b]" is taken as it is, although CLI11 takes it for a
// list of two words. app must have all its commands.
void ParseCommandLine(CLI::App& app, int argc, char** argv);
// Returns the words that ParseCommandLine has not expected.
std::vector<std::string> UnexpectedWords(const CLI::App& app);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_OPTIONS_H_
