// Every failure of this library is thrown as an msb::Error. An Error has a kind, for programs to
// branch on, and a message, for people: it names the thing, what was expected and what was found,
// and where there is one, the next step.
//
// The kinds are those of the microsandbox Go SDK that the snapshot API can raise, under the same
// names; kSnapshotHasChildren is this library's own.

#ifndef MSB_ERROR_H_
#define MSB_ERROR_H_

#include <stdexcept>
#include <string>
#include <string_view>

#include "msb/export.h"

namespace msb {

enum class ErrorKind {
  kSandboxNotFound,         // No sandbox of that name.
  kSandboxAlreadyExists,    // A new sandbox's name is taken.
  kSandboxStillRunning,     // The call wants a sandbox that is not running.
  kImageNotFound,           // The image to boot from does not exist.
  kSnapshotNotFound,        // No such artifact, index row, or parent.
  kSnapshotAlreadyExists,   // The destination of a new artifact exists and may not be replaced.
  kSnapshotSandboxRunning,  // The sandbox to snapshot runs, or its disk changed meanwhile.
  kSnapshotImageMissing,    // The image that a snapshot pins is not in the cache.
  kSnapshotIntegrity,       // An artifact or archive is malformed, or differs from its record.
  kIO,                      // The operating system refused; the message carries its reason.
  kInvalidConfig,           // A name, a Config or a sandbox's configuration that cannot be used.
  kInvalidArgument,         // Arguments that contradict each other or are out of range.
  kInvalidHandle,           // The handle was closed.
  kCancelled,               // The Context was cancelled or its deadline has passed.
  kUnsupportedOperation,    // Not possible with this backend, artifact or index.
  kInternal,                // A bug in this library, or a database that makes no sense.
  kSnapshotHasChildren,     // The snapshot to remove is the parent of others.
};

// The kind's name without its k: "SnapshotNotFound".
MSB_EXPORT std::string_view ErrorKindName(ErrorKind kind) noexcept;

// Immutable; may be copied and read from any thread.
class MSB_EXPORT Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ~Error() override;

  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

// True if e is an msb::Error of that kind.
MSB_EXPORT bool IsKind(const std::exception& e, ErrorKind kind) noexcept;

}  // namespace msb

#endif  // MSB_ERROR_H_
