// SPDX-License-Identifier: Apache-2.0
//
// Every failure of this library is thrown as an msb::Error. An Error has a kind for programs to
// branch on, and a message for people. The message names the object that the call failed on, what
// was expected and what was found, and the next step if there is one. Other exceptions pass through
// unchanged: std::bad_alloc, and those that the caller's progress function or Backend throws.
//
// The kinds are those of the microsandbox Go SDK that the snapshot API can raise, under the same
// names; kSnapshotHasChildren, kRegistryUnauthorized and kRegistryUnavailable exist in this library
// only.

#ifndef MSB_ERROR_H_
#define MSB_ERROR_H_

#include <stdexcept>
#include <string>
#include <string_view>

#include "msb/export.h"

namespace msb {

enum class ErrorKind {
  kSandboxNotFound,       // The sandbox does not exist.
  kSandboxAlreadyExists,  // The name of a new sandbox is taken.
  kSandboxStillRunning,   // The operation requires a stopped sandbox, but this one is running.
  kImageNotFound,         // The image to boot from does not exist.
  kSnapshotNotFound,      // The artifact, index row or parent does not exist.
  // The destination of a new artifact exists and must not be replaced, or the home already has the
  // snapshot to import.
  kSnapshotAlreadyExists,
  kSnapshotSandboxRunning,  // The sandbox to snapshot is running, or its disk changed meanwhile.
  kSnapshotImageMissing,    // The image that a snapshot pins is not in the cache.
  // An artifact, an archive or the data of a registry is malformed, or differs from its record.
  kSnapshotIntegrity,
  // The operating system, the VMM or another program failed or refused. The message has the reason,
  // the path and the next step.
  kIO,
  // A name, a Config or the configuration of a sandbox is invalid, or the VMM does not start with
  // that configuration, for example because the kernel or an option is wrong.
  kInvalidConfig,
  kInvalidArgument,       // Arguments contradict each other or are out of range.
  kInvalidHandle,         // The Sandbox was closed, detached or moved from.
  kCancelled,             // The Context was cancelled or its deadline has passed.
  kUnsupportedOperation,  // The backend, artifact, archive or index does not support the operation.
  // A bug in this library, or a database with an unexpected schema. Not used for failures of the
  // VMM, the configuration or the operating system.
  kInternal,
  kSnapshotHasChildren,  // Other snapshots or sandboxes depend on the snapshot.
  // The registry rejects the credentials, or requires credentials.
  kRegistryUnauthorized,
  kRegistryUnavailable,  // The registry cannot be reached, or fails.
};

// Returns the name of the kind without its "k", such as "SnapshotNotFound".
[[nodiscard]] MSB_EXPORT std::string_view ErrorKindName(ErrorKind kind) noexcept;

// An Error represents a failure. It is immutable, and threads may share and copy it.
class MSB_EXPORT Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message, int os_error = 0)
      : std::runtime_error(message), kind_(kind), os_error_(os_error) {}
  ~Error() override;

  [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }
  // Returns the errno of the system call whose failure caused a kIO, and 0 for all other errors.
  [[nodiscard]] int os_error() const noexcept { return os_error_; }

 private:
  ErrorKind kind_;
  int os_error_ = 0;
};

// Returns true if e is an msb::Error of that kind.
[[nodiscard]] MSB_EXPORT bool IsKind(const std::exception& e, ErrorKind kind) noexcept;

}  // namespace msb

#endif  // MSB_ERROR_H_
