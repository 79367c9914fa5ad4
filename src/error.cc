// SPDX-License-Identifier: Apache-2.0

#include "msb/error.h"

namespace msb {

Error::~Error() = default;

std::string_view ErrorKindName(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::kSandboxNotFound:
      return "SandboxNotFound";
    case ErrorKind::kSandboxAlreadyExists:
      return "SandboxAlreadyExists";
    case ErrorKind::kSandboxStillRunning:
      return "SandboxStillRunning";
    case ErrorKind::kImageNotFound:
      return "ImageNotFound";
    case ErrorKind::kSnapshotNotFound:
      return "SnapshotNotFound";
    case ErrorKind::kSnapshotAlreadyExists:
      return "SnapshotAlreadyExists";
    case ErrorKind::kSnapshotSandboxRunning:
      return "SnapshotSandboxRunning";
    case ErrorKind::kSnapshotImageMissing:
      return "SnapshotImageMissing";
    case ErrorKind::kSnapshotIntegrity:
      return "SnapshotIntegrity";
    case ErrorKind::kIO:
      return "IO";
    case ErrorKind::kInvalidConfig:
      return "InvalidConfig";
    case ErrorKind::kInvalidArgument:
      return "InvalidArgument";
    case ErrorKind::kInvalidHandle:
      return "InvalidHandle";
    case ErrorKind::kCancelled:
      return "Cancelled";
    case ErrorKind::kUnsupportedOperation:
      return "UnsupportedOperation";
    case ErrorKind::kInternal:
      return "Internal";
    case ErrorKind::kSnapshotHasChildren:
      return "SnapshotHasChildren";
    case ErrorKind::kRegistryUnauthorized:
      return "RegistryUnauthorized";
    case ErrorKind::kRegistryUnavailable:
      return "RegistryUnavailable";
  }
  return "Unknown";
}

bool IsKind(const std::exception& e, ErrorKind kind) noexcept {
  const auto* error = dynamic_cast<const Error*>(&e);
  return error != nullptr && error->kind() == kind;
}

}  // namespace msb
