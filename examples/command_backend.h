// A backend of one's own: it boots any VMM that is given as a command line, and leaves disks and
// records to the backend "local" of another client. docs/backends.md walks through it.

#ifndef MSB_EXAMPLES_COMMAND_BACKEND_H_
#define MSB_EXAMPLES_COMMAND_BACKEND_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "msb/msb.h"
#include "vmm_command.h"
#include "vmm_process.h"

namespace example {

using msb::Context;
using msb::Error;
using msb::ErrorKind;
using msb::SandboxStatus;

// The VMM must stay in the foreground and keep its standard input: that is how it is known. It is
// asked to end by SIGTERM. One that ends by itself has crashed, in order or not. It outlives a
// crash of the program that booted it; then it runs on, and any program with this backend may stop
// it. Programs that use the same sandboxes with another backend do not see that they run.
class CommandBackend : public msb::vmm::Backend {
 public:
  // disks: a local backend. is_up: true once the VMM has booted; without one, it has when it is
  // started.
  CommandBackend(std::shared_ptr<msb::vmm::Backend> disks, std::vector<std::string> command,
                 std::function<bool(const SandboxRecord&)> is_up = {})
      : disks_(std::move(disks)), command_(std::move(command)), is_up_(std::move(is_up)) {}

  std::string_view Name() const override { return "command"; }

  SandboxRecord Inspect(const Context& ctx, const std::string& name) override {
    return WithStatus(disks_->Inspect(ctx, name));
  }

  std::vector<SandboxRecord> List(const Context& ctx) override {
    std::vector<SandboxRecord> sandboxes = disks_->List(ctx);
    for (SandboxRecord& sandbox : sandboxes) sandbox = WithStatus(std::move(sandbox));
    return sandboxes;
  }

  SandboxRecord Create(const Context& ctx, const msb::vmm::SandboxSpec& spec) override {
    msb::vmm::SandboxSpec disk = spec;
    // Start is told neither of them, and finds them in the record.
    if (spec.cpus != 0) disk.labels["vmm.cpus"] = std::to_string(spec.cpus);
    if (spec.memory_mib != 0) disk.labels["vmm.memory"] = std::to_string(spec.memory_mib);
    const auto replaced = spec.replace ? HaltIfThere(ctx, spec.name) : std::nullopt;
    disks_->Create(ctx, disk);
    try {
      return Start(ctx, spec.name, spec.detached);
    } catch (...) {
      Remove(Context::Background(), spec.name);
      throw;
    }
  }

  SandboxRecord Start(const Context& ctx, const std::string& name, bool /*detached*/) override {
    DiskLock lock = TakeIdle(ctx, name);
    const SandboxRecord sandbox = disks_->Start(ctx, name, /*detached=*/true);
    try {
      lock.HandTo(Fill(command_, sandbox));
      for (; is_up_ && !is_up_(sandbox); Nap()) {
        ctx.Check();
        if (lock.IsTaken()) continue;
        throw Error(ErrorKind::kInternal, "the VMM of '" + name + "' ended: " + lock.Log());
      }
    } catch (...) {
      lock.TakeBack(Context::Background(), {});
      disks_->Stop(Context::Background(), name, {});
      throw;
    }
    return Inspect(Context::Background(), name);
  }

  void Stop(const Context& ctx, const std::string& name,
            std::chrono::milliseconds timeout) override {
    Halt(ctx, name, timeout);
  }

  void Kill(const Context& ctx, const std::string& name) override { Halt(ctx, name, {}); }

  void Detach(const Context& ctx, const std::string& name) override { disks_->Inspect(ctx, name); }

  void Remove(const Context& ctx, const std::string& name) override {
    const DiskLock lock = TakeIdle(ctx, name);
    disks_->Remove(ctx, name);
  }

  void Seal(const Context& ctx, const std::string& name, const msb::vmm::SealSpec& spec,
            const std::function<void(const msb::vmm::Disk& sealed)>& publish) override {
    const DiskLock lock = TakeIdle(ctx, name);
    disks_->Seal(ctx, name, spec, publish);
  }

 private:
  static DiskLock LockOf(const SandboxRecord& sandbox) {
    return DiskLock(sandbox.upper->path.parent_path());
  }

  // The record says what the VMM was told; the lock, whether it runs.
  static SandboxRecord WithStatus(SandboxRecord sandbox) {
    if (sandbox.status == SandboxStatus::kRunning && !LockOf(sandbox).IsTaken()) {
      sandbox.status = SandboxStatus::kCrashed;
    }
    return sandbox;
  }

  // The lock of a sandbox that does not run.
  DiskLock TakeIdle(const Context& ctx, const std::string& name) {
    DiskLock lock = LockOf(disks_->Inspect(ctx, name));
    if (!lock.TryTake()) {
      throw Error(ErrorKind::kSandboxStillRunning, "sandbox '" + name + "' runs; stop it first");
    }
    disks_->Stop(ctx, name, {});  // Of one that has crashed, the record says that it runs.
    return lock;
  }

  // The lock of a sandbox whose VMM has been ended.
  DiskLock Halt(const Context& ctx, const std::string& name, std::chrono::milliseconds timeout) {
    DiskLock lock = LockOf(disks_->Inspect(ctx, name));
    lock.TakeBack(ctx, timeout);
    disks_->Stop(Context::Background(), name, {});
    return lock;
  }

  std::optional<DiskLock> HaltIfThere(const Context& ctx, const std::string& name) {
    try {
      return Halt(ctx, name, std::chrono::seconds(10));
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kSandboxNotFound) throw;
      return std::nullopt;
    }
  }

  const std::shared_ptr<msb::vmm::Backend> disks_;
  const std::vector<std::string> command_;
  const std::function<bool(const SandboxRecord&)> is_up_;
};

}  // namespace example

#endif  // MSB_EXAMPLES_COMMAND_BACKEND_H_
