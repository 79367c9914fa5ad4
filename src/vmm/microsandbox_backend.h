// SPDX-License-Identifier: Apache-2.0
//
// MicrosandboxBackend works with an installed microsandbox runtime: it reads sandboxes from the
// runtime's database, and creates, boots, ends and removes them with the runtime's program, msb.
//
// The runtime always boots a VM so that it outlives the calling process. A sandbox that is not
// detached is stopped by Sandbox::Close, but keeps running if the process ends without calling
// Close.

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
#include "src/base/home.h"
#include "src/base/process.h"
#include "src/vmm/microsandbox_runtime.h"

namespace msb::vmm {

class MicrosandboxBackend : public Backend {
 public:
  using Log = std::function<void(std::string_view message)>;

  // msb_path is Config::msb_path.
  MicrosandboxBackend(const base::Home& home, std::filesystem::path msb_path, Log log)
      : database_(home.RuntimeDatabase()),
        sandboxes_dir_(home.sandboxes_dir()),
        runtime_(home.path(), std::move(msb_path)),
        log_(std::move(log)) {}

  std::string_view Name() const override { return "microsandbox"; }
  SandboxRecord Inspect(const Context& ctx, const std::string& name) override;
  std::vector<SandboxRecord> List(const Context& ctx) override;

  // Errors of the runtime are thrown with the kind that KindOfRuntimeError returns, and the message
  // quotes the runtime. If SandboxSpec::replace is set, the old sandbox is removed first, so it is
  // lost even if the new one cannot be booted. In addition to the errors that Backend specifies:
  // Throws kSnapshotNotFound, kSnapshotIntegrity or kSnapshotImageMissing if the runtime reports
  // that the snapshot or its image is missing or damaged.
  // Throws kUnsupportedOperation for a qcow2 snapshot, if upper_size_mib is set for a snapshot, for
  // machine settings (SandboxSpec::qemu), and for a label whose key is empty or contains '='.
  // Throws kInvalidArgument for more than 255 CPUs.
  SandboxRecord Create(const Context& ctx, const SandboxSpec& spec) override;
  // A failure or a cancellation leaves the sandbox stopped.
  SandboxRecord Start(const Context& ctx, const std::string& name, bool detached) override;
  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override;
  void Kill(const Context& ctx, const std::string& name) override;
  // Has no effect on a sandbox that exists, since VMs of the runtime always outlive this process.
  void Detach(const Context& ctx, const std::string& name) override;
  void Remove(const Context& ctx, const std::string& name) override;
  // Keeps at most 16 MiB of each output. If ctx ends first, the command may continue in the guest.
  ExecResult Exec(const Context& ctx, const std::string& name,
                  const std::vector<std::string>& command, const ExecOptions& options) override;
  // Returns the runtime's log of the kernel's console.
  std::filesystem::path Console(const Context& ctx, const std::string& name) override;

 private:
  // A State is the part of a sandbox's row that can be read without parsing its configuration,
  // which may be malformed.
  struct State {
    SandboxStatus status = SandboxStatus::kStopped;
    std::optional<base::ProcessIdentity> process = {};  // The process of the last run, if alive.
  };

  // Returns nullopt if there is no such sandbox.
  std::optional<State> TryStateOf(const Context& ctx, const std::string& name) const;
  // Throws kSandboxNotFound if there is no such sandbox.
  State StateOf(const Context& ctx, const std::string& name) const;

  // Waits until a sandbox that was asked to stop has stopped and its process has ended. before is
  // the state of the sandbox before it was asked. Throws kIO if this takes longer than 30 s.
  void AwaitStopped(const Context& ctx, const std::string& name, const State& before) const;
  // Returns true if the sandbox has a process that was not booted by the call with this mark, or a
  // process whose environment cannot be read.
  bool IsOfAnother(const Context& ctx, const std::string& name, const std::string& mark) const;
  // Removes the parts of the sandbox that a failed Create with this mark has left, unless another
  // call has booted the sandbox meanwhile. had_directory is true if the sandbox's directory existed
  // before the sandbox was created, so that the directory must stay. Logs a failure.
  void Abandon(const std::string& name, const std::string& mark, bool had_directory);
  // Ends the VM that a failed Start with this mark has left running, unless another call has booted
  // the sandbox meanwhile. Logs a failure.
  void EndFailedStart(const std::string& name, const std::string& mark);

  const std::filesystem::path database_;
  const std::filesystem::path sandboxes_dir_;
  MicrosandboxRuntime runtime_;
  const Log log_;  // Also receives the reasons why List leaves out sandboxes.
};

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_MICROSANDBOX_BACKEND_H_
