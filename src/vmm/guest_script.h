// SPDX-License-Identifier: Apache-2.0
//
// The agent can set neither the directory nor the user of a command, and can replace its
// environment, but not add to it. This script does that in the guest.

#ifndef MSB_SRC_VMM_GUEST_SCRIPT_H_
#define MSB_SRC_VMM_GUEST_SCRIPT_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/exec.h"

namespace msb::vmm {

// Returns true if the options require the script.
bool NeedsScript(const ExecOptions& options);

// Returns the arguments for /bin/sh that run the command. If the script fails before it executes
// the command, its only output is one line on its standard error, which begins with token; see
// ThrowIfScriptFailed. token must be a word that the command cannot guess.
std::vector<std::string> ScriptArguments(const std::string& token,
                                         const std::vector<std::string>& command,
                                         const ExecOptions& options);

// Throws kInvalidConfig if result shows that the script failed: the guest has no such user,
// directory or program, or has no programs to switch users. Throws kUnsupportedOperation if the
// agent may not switch users.
void ThrowIfScriptFailed(const ExecResult& result, const std::string& token,
                         const std::string& sandbox, const std::string& program,
                         const ExecOptions& options);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_GUEST_SCRIPT_H_
