// A SnapshotArtifact is a snapshot on disk, as it was when it was opened: a directory that holds a
// manifest and a copy of a sandbox's writable disk, its upper. docs/formats.md describes it.
//
// An artifact is an immutable value; threads may share it. The accessors are plain field reads;
// only Verify touches the file system.

#ifndef MSB_ARTIFACT_H_
#define MSB_ARTIFACT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "msb/client.h"
#include "msb/context.h"
#include "msb/export.h"

namespace msb {

struct SnapshotUpperVerifyStatus {
  std::string kind;       // "verified", or "not_recorded": the snapshot carries no integrity.
  std::string algorithm;  // "msb-file-merkle-blake3-v1", …; empty if not recorded.
  std::string digest;     // Recomputed, "sha256:…" or "blake3:…"; empty if not recorded.
};

struct SnapshotVerifyReport {
  std::string digest;  // Recomputed manifest digest.
  std::string path;    // The artifact directory that was verified.
  SnapshotUpperVerifyStatus upper;
};

namespace internal {
struct ArtifactState;
}

class MSB_EXPORT SnapshotArtifact {
 public:
  // The artifact directory, absolute.
  const std::string& Path() const;
  // The snapshot's identity: "sha256:" and the SHA-256 of its canonical manifest, in hex.
  const std::string& Digest() const;
  // Apparent size of the upper, holes included. 0 for a checkpoint.
  std::uint64_t SizeBytes() const;
  // The image the sandbox was made from, as its user wrote it, and what that was when pinned.
  const std::string& ImageRef() const;
  const std::string& ImageManifestDigest() const;
  // "raw" or "qcow2"; empty for a checkpoint.
  const std::string& Format() const;
  // The file system inside the upper: "ext4", …; empty for a checkpoint.
  const std::string& Fstype() const;
  // The parent's digest; in a home of release 0.7, its snapshot id ("snap_…").
  std::optional<std::string> Parent() const;
  // RFC 3339: verbatim from a manifest.json, in the canonical form (UTC, "Z") from a snapshot.json.
  const std::string& CreatedAt() const;
  std::map<std::string, std::string> Labels() const;
  // The sandbox it was made from, if that was recorded.
  std::optional<std::string> SourceSandbox() const;

  // Reads the upper and compares it with the integrity that was recorded when it was made; one
  // pass on all cores, holes skipped where the algorithm can. kSnapshotIntegrity: the manifest or
  // the upper differs from its record, or changed while it was read. kSnapshotNotFound: the
  // artifact is gone. kUnsupportedOperation: a checkpoint, or an algorithm that is not known here.
  SnapshotVerifyReport Verify(const Context& ctx) const;

 private:
  friend struct internal::ArtifactState;
  explicit SnapshotArtifact(std::shared_ptr<const internal::ArtifactState> state);

  std::shared_ptr<const internal::ArtifactState> state_;
};

}  // namespace msb

#endif  // MSB_ARTIFACT_H_
