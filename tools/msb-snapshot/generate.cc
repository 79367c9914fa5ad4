// SPDX-License-Identifier: Apache-2.0
//
// The hidden option --generate, which the build and the completions use.

#include <fmt/format.h>

#include <memory>

#include "tools/msb-snapshot/command_line.h"
#include "tools/msb-snapshot/commands.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

// Returns the names that the completions offer, one on each line.
std::string Names(Session& session, const std::string& kind) {
  session.log = [](std::string_view) {};
  std::string names;
  if (kind == "sandboxes") {
    for (const SandboxHandle& sandbox : ListSandboxes(session.context(), session.client())) {
      names += Printable(sandbox.Name()) + "\n";
    }
    return names;
  }
  for (const SnapshotHandle& snapshot : Snapshot::List(session.context(), session.client())) {
    if (const auto name = snapshot.Name()) names += Printable(*name) + "\n";
  }
  return names;
}

std::string Generate(const CLI::App& app, Session& session, const std::string& kind) {
  const CommandInfo program = Describe(app);
  if (kind == "man") return ManPage(program, std::string(Version()));
  if (kind == "bash") return BashCompletion(program);
  if (kind == "zsh") return ZshCompletion(program);
  if (kind == "fish") return FishCompletion(program);
  return Names(session, kind);
}

}  // namespace

void AddGenerate(CLI::App& app, Invocation& invocation) {
  const auto kind = std::make_shared<std::string>();
  app.add_option("--generate", *kind)
      ->group("")  // Hidden.
      ->check(CLI::IsMember({"man", "bash", "zsh", "fish", "snapshots", "sandboxes"}))
      ->each([&, kind](const std::string& given) {
        invocation.run = [&app, &invocation, given] {
          Put(Generate(app, invocation.session, given));
          return 0;
        };
      });
}

}  // namespace msb::program
