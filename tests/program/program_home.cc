// SPDX-License-Identifier: Apache-2.0

#include "tests/program/program_home.h"

#include <algorithm>

#include "tests/program/schema.h"
#include "tests/support/build.h"

namespace msb::test {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kBaseDiskBytes = 1 << 20;

}  // namespace

ProgramTest::ProgramTest() {
  options_.directory = dir_.path();
  options_.environment = {{"HOME", dir_.path()}, {"LC_ALL", "C.UTF-8"},     {"MSB_HOME", home_},
                          {"P", ProgramPath()},  {"PATH", "/usr/bin:/bin"}, {"TERM", "xterm"},
                          {"TZ", "UTC"}};
}

std::vector<std::string> ProgramTest::Command(const Arguments& arguments) {
  std::vector<std::string> command = {ProgramPath()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

ProcessResult ProgramTest::Run(const Arguments& arguments, const std::string& input) const {
  ProcessOptions options = options_;
  options.input = input;
  return RunProcess(Command(arguments), options);
}

std::string ProgramTest::Output(const Arguments& arguments) const {
  const ProcessResult result = Run(arguments);
  EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(arguments) << result.err;
  EXPECT_EQ(result.err, "") << testing::PrintToString(arguments);
  return result.out;
}

nlohmann::json ProgramTest::Document(const std::string& definition, Arguments arguments,
                                     int exit_code) const {
  // What follows "--" is not an option.
  arguments.insert(std::find(arguments.begin(), arguments.end(), "--"), "--json");
  const ProcessResult result = Run(arguments);
  EXPECT_EQ(result.exit_code, exit_code) << testing::PrintToString(arguments) << result.out;
  EXPECT_EQ(result.err, "") << testing::PrintToString(arguments);
  const nlohmann::json document = nlohmann::json::parse(result.out, nullptr, false);
  EXPECT_FALSE(document.is_discarded()) << result.out;
  EXPECT_TRUE(Matches(document, definition)) << definition;
  return document;
}

ProcessResult ProgramTest::Bash(const std::string& command) const {
  return RunProcess({"/bin/bash", "-c", command}, options_);
}

void ProgramTest::MakeSandbox(const std::string& name, std::uint64_t noise) const {
  const fs::path image = dir_ / (name + ".img");
  if (noise == 0) {
    MakeSparseFile(image, kBaseDiskBytes, {{kExtentUnit, "content"}});
  } else {
    WriteFile(image, Noise(noise, 1));
  }
  Output({"sandbox", "create", name, "--image", image});
}

void ProgramTest::MakeSnapshot(const std::string& name, const Arguments& options) const {
  if (!fs::exists(home_ / "sandboxes/base")) MakeSandbox("base");
  Arguments arguments = {"create", name, "--from", "base"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  Output(arguments);
}

void ProgramTest::Damage(const std::string& snapshot) const {
  PatchFile(home_ / "snapshots" / snapshot / "upper.ext4", kExtentUnit, "X");
}

bool ProgramTest::HasSnapshot(const std::string& name) const {
  return fs::exists(home_ / "snapshots" / name);
}

}  // namespace msb::test
