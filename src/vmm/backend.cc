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

}  // namespace msb
