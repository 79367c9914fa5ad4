// SPDX-License-Identifier: Apache-2.0
//
// A SnapshotArtifact represents a snapshot on disk as it was when it was opened: a directory that
// holds a manifest and the snapshot's disk. Like the writable disk of a sandbox, from which it is
// made, the snapshot's disk is referred to as the upper. docs/formats.md describes the format.
//
// A SnapshotArtifact is an immutable value that threads may share. The accessors are plain field
// reads; only Verify accesses the file system. References that they return are valid until the
// object is assigned to or destroyed.

#ifndef MSB_ARTIFACT_H_
#define MSB_ARTIFACT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "msb/client.h"
#include "msb/context.h"
#include "msb/export.h"

namespace msb {

// The result of verifying the content of one file.
struct SnapshotUpperVerifyStatus {
  // "verified", or "not_recorded" if the manifest records no integrity to compare with.
  std::string kind;
  std::string algorithm;  // "msb-file-merkle-blake3-v1", …; empty if not recorded.
  std::string digest;     // The recomputed "sha256:…" or "blake3:…"; empty if not recorded.
};

// The result of verifying one file that a disk is backed by.
struct SnapshotBackingVerifyStatus {
  std::string digest;  // The digest of the snapshot or image that the file belongs to.
  std::string path;    // The path of the file.
  SnapshotUpperVerifyStatus status;
};

// The result of SnapshotArtifact::Verify.
struct SnapshotVerifyReport {
  std::string digest;  // The digest of the manifest, as recomputed.
  std::string path;    // The artifact directory that was verified.
  SnapshotUpperVerifyStatus upper;
  // The files that the upper is backed by, nearest first. Empty for a disk without a backing file.
  std::vector<SnapshotBackingVerifyStatus> backing;
};

// The content hash that a manifest records for a file.
struct SnapshotIntegrity {
  std::string algorithm;  // "msb-file-merkle-blake3-v1", "msb-sparse-sha256-v1" or "sha256".
  std::string digest;     // "blake3:…" or "sha256:…".

  bool operator==(const SnapshotIntegrity&) const = default;
};

namespace internal {
struct ArtifactState;
}

class MSB_EXPORT SnapshotArtifact {
 public:
  // A move copies, so every artifact keeps its value.
  SnapshotArtifact(const SnapshotArtifact&) = default;
  SnapshotArtifact(SnapshotArtifact&& other) noexcept { *this = other; }
  SnapshotArtifact& operator=(const SnapshotArtifact&) = default;
  SnapshotArtifact& operator=(SnapshotArtifact&& other) noexcept {
    return *this = std::as_const(other);
  }
  ~SnapshotArtifact() = default;

  // Returns the absolute path of the artifact directory.
  [[nodiscard]] const std::string& Path() const;
  // Returns the snapshot's identity: "sha256:" and the SHA-256 of its canonical manifest, in hex.
  [[nodiscard]] const std::string& Digest() const;
  // Returns the apparent size of the upper in bytes, holes included, or, for a snapshot of release
  // 0.7, the size of the disk as the guest sees it. Returns 0 for a checkpoint.
  [[nodiscard]] std::uint64_t SizeBytes() const;
  // Returns the reference of the image that the sandbox was made from, as its user wrote it.
  [[nodiscard]] const std::string& ImageRef() const;
  // Returns the digest that this image had when it was pinned.
  [[nodiscard]] const std::string& ImageManifestDigest() const;
  // Returns "raw" or "qcow2", or an empty string for a checkpoint.
  [[nodiscard]] const std::string& Format() const;
  // Returns the type of the file system inside the upper, such as "ext4", or an empty string for a
  // checkpoint.
  [[nodiscard]] const std::string& Fstype() const;
  // Returns the digest of the parent, or its snapshot id ("snap_…") for a snapshot of release 0.7.
  // Returns nullopt if the snapshot has no parent.
  [[nodiscard]] std::optional<std::string> Parent() const;
  // Returns the time of creation as RFC 3339: verbatim from a manifest.json, and in the canonical
  // form (UTC, "Z") from a snapshot.json.
  [[nodiscard]] const std::string& CreatedAt() const;
  // Returns the labels, or an empty map if there are none.
  [[nodiscard]] std::map<std::string, std::string> Labels() const;
  // Returns the name of the sandbox that the snapshot was made from, or nullopt if it was not
  // recorded.
  [[nodiscard]] std::optional<std::string> SourceSandbox() const;

  // Returns how consistent the disk is: "stopped" if the sandbox did not run, or if a snapshot of
  // the manifest or descriptor generation does not record the consistency; "filesystem-consistent"
  // if it ran, and the file systems of the guest were frozen, so that they need no repair;
  // "crash-consistent" if it ran, and the disk is as after a power failure, or if a 0.7 runtime,
  // which does not distinguish these cases, created the snapshot; or an empty string if it was not
  // recorded, as for a checkpoint.
  [[nodiscard]] const std::string& Consistency() const;

  // Returns the content hash that the manifest records for the upper. Returns nullopt if no hash
  // was recorded, and for a checkpoint. Reads no file; Verify compares the content with this hash.
  [[nodiscard]] std::optional<SnapshotIntegrity> Integrity() const;

  // Verifies the content of the snapshot's disk. Reads the upper and every file that it is backed
  // by, and compares each file with its record. A file of a snapshot is compared with the integrity
  // that its manifest records; its status is "not_recorded" if there is none. The image is compared
  // with its pinned SHA-256 (algorithm "sha256"). Also recomputes the digest of each manifest. Each
  // file is read once, on all cores; holes are skipped if the algorithm allows it. The progress
  // phase is "verify", and its total covers all files.
  //
  // Booting a snapshot, Export, Flatten and Squash do not verify the content. Call Verify first if
  // that is required.
  //
  // Throws kSnapshotIntegrity if a manifest or a file differs from its record, or changes while it
  // is read. The message names the file.
  // Throws kSnapshotNotFound if the artifact was removed or replaced since it was opened, or if a
  // parent that the upper is backed by is missing.
  // Throws kSnapshotImageMissing if the image that the upper is backed by is not in the cache.
  // Throws kUnsupportedOperation for a checkpoint, for an unknown integrity algorithm, for a parent
  // that needs an unsupported feature, and for a disk that is backed by more than 200 snapshots.
  // Throws kCancelled if ctx ends first.
  // Throws kIO if a file cannot be read.
  [[nodiscard]] SnapshotVerifyReport Verify(const Context& ctx) const;

 private:
  friend struct internal::ArtifactState;
  explicit SnapshotArtifact(std::shared_ptr<const internal::ArtifactState> state);

  std::shared_ptr<const internal::ArtifactState> state_;
};

}  // namespace msb

#endif  // MSB_ARTIFACT_H_
