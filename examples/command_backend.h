// SPDX-License-Identifier: Apache-2.0
//
// A custom backend: it boots any VMM that is started by a command line, and leaves disks and
// records to the backend "local" of another client. docs/backends.md explains it.

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

// CommandBackend runs each sandbox in a process of the VMM. The VMM must stay in the foreground and
// keep its standard input, by which it is recognized. Stop asks it to end by SIGTERM. A VMM that
// ends by itself counts as crashed, even if it ended in order. If the program that booted a VMM
// crashes, the VMM keeps running, and any program with this backend can stop it. Programs that use
// the same sandboxes with another backend do not know whether the VMM runs.
class CommandBackend : public msb::vmm::Backend {
 public:
  // disks is a local backend. is_up returns true once the VMM has booted. If is_up is empty, the
  // VMM counts as booted as soon as it is started.
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
    // Start does not get these two, and finds them in the record.
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
        throw Error(ErrorKind::kInvalidConfig, "the VMM of '" + name + "' ended: " + lock.Log());
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

  void Seal(const Context& ctx, const std::string& name, const msb::vmm::SealDescriber& describe,
            const msb::vmm::SealPublisher& publish) override {
    const DiskLock lock = TakeIdle(ctx, name);
    disks_->Seal(ctx, name, describe, publish);
  }

 private:
  static DiskLock LockOf(const SandboxRecord& sandbox) {
    return DiskLock(sandbox.upper->path.parent_path());
  }

  // Returns the record with its actual status: the record has the requested state, and the lock
  // shows whether the VMM runs.
  static SandboxRecord WithStatus(SandboxRecord sandbox) {
    if (sandbox.status == SandboxStatus::kRunning && !LockOf(sandbox).IsTaken()) {
      sandbox.status = SandboxStatus::kCrashed;
    }
    return sandbox;
  }

  // Takes and returns the lock of a sandbox that does not run. Throws kSandboxStillRunning if it
  // runs.
  DiskLock TakeIdle(const Context& ctx, const std::string& name) {
    DiskLock lock = LockOf(disks_->Inspect(ctx, name));
    if (!lock.TryTake()) {
      throw Error(ErrorKind::kSandboxStillRunning,
                  "sandbox '" + name + "' is running; stop it first");
    }
    disks_->Stop(ctx, name, {});  // After a crash, the record still says that it runs.
    return lock;
  }

  // Ends the VMM of a sandbox, and returns the sandbox's lock.
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
