// SPDX-License-Identifier: Apache-2.0
//
// A SnapshotHandle represents one row of the snapshot index as it was when it was read. Rows are
// cheap to list, but may be out of date, because the index is a cache of the artifacts. To access
// the artifact itself, call Open.
//
// A handle is an immutable value that threads may share. The accessors are plain field reads; only
// Open and Remove access the file system. References that the accessors return are valid until the
// handle is assigned to or destroyed.

#ifndef MSB_HANDLE_H_
#define MSB_HANDLE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

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
  // A move copies, so every handle keeps its value.
  SnapshotHandle(const SnapshotHandle&) = default;
  SnapshotHandle(SnapshotHandle&& other) noexcept { *this = other; }
  SnapshotHandle& operator=(const SnapshotHandle&) = default;
  SnapshotHandle& operator=(SnapshotHandle&& other) noexcept {
    return *this = std::as_const(other);
  }
  ~SnapshotHandle() = default;

  // Returns the digest of the manifest, "sha256:…".
  [[nodiscard]] const std::string& Digest() const;
  // Returns the name that the snapshot is indexed by, "GROUP:NAME" for a member of a group. Returns
  // nullopt if the snapshot has no name, or if its artifact is outside the snapshots directory and
  // its name is taken by an artifact inside.
  [[nodiscard]] std::optional<std::string> Name() const;
  // Returns the digest of the parent, or its snapshot id ("snap_…") for a snapshot of release 0.7.
  // Returns nullopt if the snapshot has no parent.
  [[nodiscard]] std::optional<std::string> ParentDigest() const;
  // Returns the reference of the image that the sandbox was made from, as its user wrote it.
  [[nodiscard]] const std::string& ImageRef() const;
  // Returns "raw" or "qcow2", or an empty string for a checkpoint.
  [[nodiscard]] const std::string& Format() const;
  // Returns the SnapshotArtifact::SizeBytes() that the snapshot had when it was indexed, in bytes,
  // or nullopt if the index does not record it.
  [[nodiscard]] std::optional<std::uint64_t> SizeBytes() const;
  // Returns the artifact directory. If the artifact is in the client's home or snapshots directory,
  // its path begins with the path of that directory, even if the home was moved or copied since the
  // snapshot was indexed, or is reached through symbolic links.
  [[nodiscard]] const std::string& Path() const;
  // Returns the time at which the snapshot was created.
  [[nodiscard]] std::chrono::system_clock::time_point CreatedAt() const;

  // Opens the artifact at Path(), as Snapshot::Open does. The index may be stale, so the artifact
  // found there may have another digest.
  // Throws what Snapshot::Open throws.
  [[nodiscard]] SnapshotArtifact Open(const Context& ctx) const;
  // Removes the artifact at Path() if it still has this Digest(), and otherwise another artifact
  // with this digest, as Snapshot::Remove does.
  // Throws what Snapshot::Remove throws.
  void Remove(const Context& ctx, bool force) const;

 private:
  friend struct internal::HandleState;
  explicit SnapshotHandle(std::shared_ptr<const internal::HandleState> state);

  std::shared_ptr<const internal::HandleState> state_;
};

}  // namespace msb

#endif  // MSB_HANDLE_H_
