// The installed microsandbox runtime, the program msb: which one it is, what it is told, and what
// its errors mean. What each release understands was found with the releases themselves.

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
#include "msb/vmm/backend.h"
#include "src/base/file.h"

namespace msb::vmm {

using RuntimeVersion = std::array<int, 3>;  // {0, 6, 18} for 0.6.18.

// Of what `msb --version` prints, "msb 0.6.18"; nothing if that is no version.
std::optional<RuntimeVersion> ParseRuntimeVersion(std::string_view output);

// What that release is told, one command after the other, to create and boot a sandbox.
// kUnsupportedOperation: the runtime cannot boot one like that.
std::vector<std::vector<std::string>> CreateCommands(const RuntimeVersion& version,
                                                     const SandboxSpec& spec);

// The kind of an error that the runtime printed; kInternal for one that is not known here.
ErrorKind KindOfRuntimeError(std::string_view message);

// A variable in the environment of VMs that tells whose call booted them.
inline constexpr std::string_view kMark = "MSB_STARTED_BY";

// One installed runtime on one home. Its commands throw what it reports, under the kind of
// KindOfRuntimeError; kInvalidConfig if there is no runtime, or it has no version.
class MicrosandboxRuntime {
 public:
  // configured: Config::msb_path.
  MicrosandboxRuntime(std::filesystem::path home, std::filesystem::path configured)
      : home_(std::move(home)), configured_(std::move(configured)) {}

  // Throws unless there is a runtime that could create such a sandbox.
  void CheckCanCreate(const Context& ctx, const SandboxSpec& spec);

  // Boots a new sandbox, which goes on without this process. A failure may leave parts of it. Its
  // VM has kMark in its environment, with this value.
  void Create(const Context& ctx, const SandboxSpec& spec, const std::string& mark);
  void Start(const Context& ctx, const std::string& name, const std::string& mark);
  // Asks the guest to shut down. When the time-out has passed, releases before 0.7 end it, and
  // later ones fail.
  void Stop(const Context& ctx, const std::string& name, std::chrono::milliseconds timeout);
  void Kill(const Context& ctx, const std::string& name);
  void Remove(const Context& ctx, const std::string& name);
  // Kills it first, if it runs.
  void ForceRemove(const Context& ctx, const std::string& name);

 private:
  std::filesystem::path Find() const;
  RuntimeVersion VersionOf(const Context& ctx, const std::filesystem::path& program);
  // Returns what it printed. action: for the message, "stop sandbox 'x'".
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
