// A SnapshotHandle is a row of the snapshot index: cheap to list, and possibly out of date, for the
// index is a cache of the artifacts. Open gets the artifact itself.
//
// A handle is an immutable value; threads may share it. The accessors are plain field reads.

#ifndef MSB_HANDLE_H_
#define MSB_HANDLE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "msb/artifact.h"
#include "msb/client.h"
#include "msb/context.h"
#include "msb/export.h"

namespace msb {

namespace internal {
struct HandleState;
}

class MSB_EXPORT SnapshotHandle {
 public:
  // The manifest's digest, "sha256:…".
  const std::string& Digest() const;
  // The name it is indexed by, "GROUP:NAME" for a member of a group. Nothing if it has none, or an
  // artifact in the snapshots directory has the same.
  std::optional<std::string> Name() const;
  // The parent's digest; in a home of release 0.7, its snapshot id ("snap_…").
  std::optional<std::string> ParentDigest() const;
  const std::string& ImageRef() const;
  // "raw" or "qcow2"; empty for a checkpoint.
  const std::string& Format() const;
  // Apparent size of the upper when it was indexed, if known.
  std::optional<std::uint64_t> SizeBytes() const;
  // The artifact directory.
  const std::string& Path() const;
  std::chrono::system_clock::time_point CreatedAt() const;

  // Snapshot::Open on Path().
  SnapshotArtifact Open(const Context& ctx) const;
  // Snapshot::Remove on Digest().
  void Remove(const Context& ctx, bool force) const;

 private:
  friend struct internal::HandleState;
  explicit SnapshotHandle(std::shared_ptr<const internal::HandleState> state);

  std::shared_ptr<const internal::HandleState> state_;
};

}  // namespace msb

#endif  // MSB_HANDLE_H_
