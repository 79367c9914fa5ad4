// SPDX-License-Identifier: Apache-2.0

#include "msb/vmm/backend.h"

#include "src/base/throw.h"

namespace msb {

std::string_view ToString(SandboxStatus status) noexcept {
  switch (status) {
    case SandboxStatus::kCreated:
      return "created";
    case SandboxStatus::kStarting:
      return "starting";
    case SandboxStatus::kRunning:
      return "running";
    case SandboxStatus::kDraining:
      return "draining";
    case SandboxStatus::kPaused:
      return "paused";
    case SandboxStatus::kStopped:
      return "stopped";
    case SandboxStatus::kCrashed:
      return "crashed";
  }
  return "unknown";
}

vmm::Backend::~Backend() = default;

void vmm::Backend::Seal(const Context& /*ctx*/, const std::string& name,
                        const SealDescriber& /*describe*/, const SealPublisher& /*publish*/) {
  base::Throw(ErrorKind::kUnsupportedOperation,
              "the {} backend cannot seal the disk of sandbox '{}'", Name(), name);
}

void vmm::Backend::SealLive(const Context& /*ctx*/, const std::string& name, LiveSnapshot /*level*/,
                            const LiveSealDescriber& /*describe*/,
                            const SealPublisher& /*publish*/) {
  base::Throw(ErrorKind::kUnsupportedOperation,
              "the {} backend cannot make a snapshot of sandbox '{}' while it runs; stop it first",
              Name(), name);
}

vmm::SandboxRecord vmm::Backend::Restore(const Context& /*ctx*/, const std::string& name,
                                         const SnapshotSource& /*snapshot*/) {
  base::Throw(ErrorKind::kUnsupportedOperation,
              "the {} backend cannot restore sandbox '{}'; create a sandbox from the snapshot",
              Name(), name);
}

ExecResult vmm::Backend::Exec(const Context& /*ctx*/, const std::string& name,
                              const std::vector<std::string>& /*command*/,
                              const ExecOptions& /*options*/) {
  base::Throw(
      ErrorKind::kUnsupportedOperation,
      "the {} backend cannot run commands in sandbox '{}'; use the qemu or the microsandbox "
      "backend",
      Name(), name);
}

std::filesystem::path vmm::Backend::Console(const Context& /*ctx*/, const std::string& name) {
  base::Throw(ErrorKind::kUnsupportedOperation, "the {} backend records no console of sandbox '{}'",
              Name(), name);
}

}  // namespace msb
