// SPDX-License-Identifier: Apache-2.0
//
// Runs msb, the program of an installed microsandbox runtime: finds the program, builds its command
// lines and interprets its errors. The command lines that each release understands were determined
// by running that release.

#ifndef MSB_SRC_VMM_MICROSANDBOX_RUNTIME_H_
#define MSB_SRC_VMM_MICROSANDBOX_RUNTIME_H_

#include <array>
#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "msb/exec.h"
#include "msb/vmm/backend.h"
#include "src/base/command.h"
#include "src/base/file.h"

namespace msb::vmm {

using RuntimeVersion = std::array<int, 3>;  // {0, 6, 18} for 0.6.18.

// Parses the output of `msb --version`, such as "msb 0.6.18". Returns nullopt if it is not a
// version.
std::optional<RuntimeVersion> ParseRuntimeVersion(std::string_view output);

// Returns the commands, to be run one after the other, that create and boot a sandbox with this
// release.
// Throws kUnsupportedOperation if the runtime cannot boot such a sandbox.
// Throws kInvalidArgument for more than 255 CPUs.
std::vector<std::vector<std::string>> CreateCommands(const RuntimeVersion& version,
                                                     const SandboxSpec& spec);

// Returns the arguments that run a command in a sandbox. All releases that this library supports
// understand them.
// Throws kUnsupportedOperation if the runtime would take the name of the sandbox for an option.
std::vector<std::string> ExecArguments(const std::string& name,
                                       const std::vector<std::string>& command,
                                       const ExecOptions& options);

// Returns the kind of the error whose message the runtime printed, or kIO if the message is
// unknown.
ErrorKind KindOfRuntimeError(std::string_view message);

// An environment variable of VM processes that identifies the call that booted them.
inline constexpr std::string_view kMark = "MSB_STARTED_BY";

// A MicrosandboxRuntime represents one installed runtime and one home. A command that fails throws
// an Error of the kind that KindOfRuntimeError returns for the runtime's message. Every function
// throws kInvalidConfig if no runtime is installed, or if its version cannot be determined. A
// MicrosandboxRuntime is safe to use from several threads.
class MicrosandboxRuntime {
 public:
  // configured is Config::msb_path.
  MicrosandboxRuntime(std::filesystem::path home, std::filesystem::path configured)
      : home_(std::move(home)), configured_(std::move(configured)) {}

  // Throws unless the installed runtime can create such a sandbox.
  void CheckCanCreate(const Context& ctx, const SandboxSpec& spec);

  // Creates and boots a sandbox. Its VM outlives this process, and has kMark with the value mark in
  // its environment. A failure may leave parts of the sandbox behind.
  void Create(const Context& ctx, const SandboxSpec& spec, const std::string& mark);
  void Start(const Context& ctx, const std::string& name, const std::string& mark);
  // Asks the guest to shut down. If the guest has not shut down when timeout has passed, releases
  // before 0.7 end the VM, and release 0.7 fails.
  void Stop(const Context& ctx, const std::string& name, std::chrono::milliseconds timeout);
  void Kill(const Context& ctx, const std::string& name);
  void Remove(const Context& ctx, const std::string& name);
  // Removes the sandbox, and kills it first if it runs.
  void ForceRemove(const Context& ctx, const std::string& name);
  // Runs a command in a running sandbox. If ctx ends first, the runtime's program is ended; the
  // command may continue. A command that cannot be executed is a kInvalidConfig.
  ExecResult Exec(const Context& ctx, const std::string& name,
                  const std::vector<std::string>& command, const ExecOptions& options) const;

 private:
  std::filesystem::path Find() const;
  RuntimeVersion VersionOf(const Context& ctx, const std::filesystem::path& program);
  // Returns a command of the program in the environment that it requires.
  base::Command CommandOf(const std::filesystem::path& program,
                          const std::vector<std::string>& arguments) const;
  // Runs the program and returns its standard output. action describes the operation for messages,
  // such as "stop sandbox 'x'". mark is the value of the variable kMark; if mark is empty, the
  // variable is not set.
  std::string Run(const Context& ctx, const std::filesystem::path& program,
                  const std::string& action, const std::vector<std::string>& arguments,
                  const std::string& mark = {}) const;

  const std::filesystem::path home_;
  const std::filesystem::path configured_;

  std::mutex mutex_;
  // By canonical path. Guarded by mutex_.
  std::map<std::filesystem::path, std::pair<base::FileStamp, RuntimeVersion>> versions_;
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_MICROSANDBOX_RUNTIME_H_
