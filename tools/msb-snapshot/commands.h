// SPDX-License-Identifier: Apache-2.0
//
// The commands of the program. Each function adds commands to the parser; parsing a command stores
// what is to be done in Invocation::run.

#ifndef MSB_TOOLS_MSB_SNAPSHOT_COMMANDS_H_
#define MSB_TOOLS_MSB_SNAPSHOT_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "tools/msb-snapshot/session.h"

namespace msb::program {

struct Invocation {
  Session session;
  std::function<int()> run;  // Returns the exit code. Set by the command that was parsed.
};

// Adds a command with the options that all commands have.
CLI::App* AddCommand(CLI::App& parent, Invocation& invocation, const std::string& name,
                     const std::string& description);

void AddCreate(CLI::App& app, Invocation& invocation);    // create, squash
void AddList(CLI::App& app, Invocation& invocation);      // list, reindex
void AddInspect(CLI::App& app, Invocation& invocation);   // inspect, verify
void AddRemove(CLI::App& app, Invocation& invocation);    // remove
void AddRestore(CLI::App& app, Invocation& invocation);   // restore
void AddSpace(CLI::App& app, Invocation& invocation);     // df, prune
void AddTransfer(CLI::App& app, Invocation& invocation);  // export, import, flatten
void AddRegistry(CLI::App& app, Invocation& invocation);  // push, pull
void AddTree(CLI::App& app, Invocation& invocation);      // tree
void AddFork(CLI::App& app, Invocation& invocation);      // fork
void AddExec(CLI::App& app, Invocation& invocation);      // exec
// sandbox list, create, start, stop, remove, console
void AddSandbox(CLI::App& app, Invocation& invocation);
void AddDoctor(CLI::App& app, Invocation& invocation);  // doctor

// Adds the hidden option --generate, which prints the man page or a completion script of app.
void AddGenerate(CLI::App& app, Invocation& invocation);

}  // namespace msb::program

#endif  // MSB_TOOLS_MSB_SNAPSHOT_COMMANDS_H_
