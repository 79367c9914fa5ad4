// The sandboxes of an installed microsandbox runtime: read from its database, booted and ended with
// its program msb.
//
// The runtime always boots a VM so that it outlives whoever asked for it. A sandbox that is not
// detached is stopped by Sandbox::Close; it goes on if the process ends without that.

#ifndef MSB_SRC_VMM_MICROSANDBOX_BACKEND_H_
#define MSB_SRC_VMM_MICROSANDBOX_BACKEND_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/vmm/backend.h"
#include "src/base/process.h"
#include "src/vmm/microsandbox_runtime.h"

namespace msb::vmm {

class MicrosandboxBackend : public Backend {
 public:
  using Log = std::function<void(std::string_view message)>;

  // database is the runtime's db/msb.db, below home; msb_path is Config::msb_path.
  MicrosandboxBackend(std::filesystem::path database, std::filesystem::path sandboxes_dir,
                      std::filesystem::path home, std::filesystem::path msb_path, Log log)
      : database_(std::move(database)),
        sandboxes_dir_(std::move(sandboxes_dir)),
        runtime_(std::move(home), std::move(msb_path)),
        log_(std::move(log)) {}

  std::string_view Name() const override { return "microsandbox"; }
  SandboxRecord Inspect(const Context& ctx, const std::string& name) override;
  std::vector<SandboxRecord> List(const Context& ctx) override;

  // What the runtime reports is thrown under the kind that fits, with its own words in the message.
  // A sandbox that is to be replaced is gone even if the new one cannot be booted. Beyond what
  // Backend says: kSnapshotNotFound, kSnapshotIntegrity and kSnapshotImageMissing for the snapshot;
  // kUnsupportedOperation for one of qcow2, and for a snapshot with upper_size_mib.
  SandboxRecord Create(const Context& ctx, const SandboxSpec& spec) override;
  // A failure or a cancellation leaves the sandbox stopped.
  SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) override;
  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override;
  void Kill(const Context& ctx, const std::string& name) override;
  // Does nothing to a sandbox that is there.
  void Detach(const Context& ctx, const std::string& name) override;
  void Remove(const Context& ctx, const std::string& name) override;

 private:
  // A sandbox's row without its configuration, which may make no sense.
  struct State {
    SandboxStatus status = SandboxStatus::kStopped;
    std::optional<base::ProcessIdentity> process = {};  // Of its last run, if that is alive.
  };

  // Nothing if there is no such sandbox.
  std::optional<State> TryStateOf(const Context& ctx, const std::string& name) const;
  // kSandboxNotFound.
  State StateOf(const Context& ctx, const std::string& name) const;

  // Returns when a sandbox that was told to stop, and was in this state before, has stopped.
  void AwaitStopped(const Context& ctx, const std::string& name, const State& before) const;
  // True if what there is of the sandbox now is not of the call that had this mark.
  bool IsOfAnother(const Context& ctx, const std::string& name, const std::string& mark) const;
  // Remove whatever a Create that failed has left, or end what a Start that failed has. They log
  // what they cannot do.
  void Abandon(const std::string& name, const std::string& mark, bool had_directory);
  void EndFailedStart(const std::string& name, const std::string& mark);

  const std::filesystem::path database_;
  const std::filesystem::path sandboxes_dir_;
  MicrosandboxRuntime runtime_;
  const Log log_;  // Takes what List leaves out, too.
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_MICROSANDBOX_BACKEND_H_
