// SPDX-License-Identifier: Apache-2.0
//
// Creates an artifact from the disk of a sandbox.

#ifndef MSB_SRC_ARTIFACT_CREATE_H_
#define MSB_SRC_ARTIFACT_CREATE_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/base/staging.h"

namespace msb::artifact {

// A NewArtifact describes an artifact to create.
struct NewArtifact {
  // The artifact directory. Its parent directories are created if they are missing.
  std::filesystem::path destination = {};
  std::filesystem::path upper = {};       // The file to copy or to take over.
  std::vector<BackingFile> backing = {};  // Backing files of a qcow2 upper, nearest first.
  // Write out a qcow2 upper with its backing files as one raw disk, even if the manifest names the
  // nearest backing file.
  bool flatten = false;
  // Complete except for the digest, the size, and the size and integrity of the only layer.
  Manifest manifest = {};
  std::optional<std::string> integrity_algorithm = {};  // The integrity to record, if any.
  bool force = false;  // Replace an existing artifact at the destination.
  // Called after the disk has been written and before the artifact is published. Throws to prevent
  // the publication. May be empty.
  std::function<void()> confirm = {};
  // Called with the artifact that would be replaced, while it is locked, if its manifest is valid.
  // Throws to prevent the replacement. May be empty.
  std::function<void(const Artifact& old)> confirm_replace = {};
};

// Throws kSnapshotAlreadyExists if the destination exists, unless it is an artifact and force is
// set. The functions below check that too.
void CheckDestination(const NewArtifact& spec);

// Creates an artifact and flushes it to disk. A failure leaves nothing of the artifact behind. A
// qcow2 upper whose backing file is neither the disk of the manifest's parent nor its image is
// written out, together with the files in spec.backing, as one raw disk.
// Throws kSnapshotAlreadyExists if the destination exists, unless it is an artifact and force is
// set.
// Throws kSnapshotSandboxRunning if another process has the upper open for writing, or the upper
// changed while it was copied.
// Throws kInvalidConfig if the upper's backing file is neither of these and spec.backing is empty,
// or if the manifest would be invalid.
// Throws kSnapshotIntegrity if a qcow2 upper, or a file that it is backed by, is damaged.
// Throws kUnsupportedOperation if the disk is larger than 2^53 - 1 bytes.
Artifact CreateArtifact(const Context& ctx, NewArtifact spec);
// Creates an artifact whose disk is written by write_disk into the open directory stage. write_disk
// must complete the manifest's layer with CopyIntoLayer or CompleteLayer.
using DiskWriter = std::function<void(NewArtifact& spec, int stage)>;
Artifact CreateArtifact(const Context& ctx, NewArtifact spec, const DiskWriter& write_disk);
// Copies the first size bytes of a disk into an empty file, and records the size and, if spec asks
// for it, the integrity in the manifest.
void CopyIntoLayer(const Context& ctx, NewArtifact& spec, int source, int target,
                   std::uint64_t size);
// Records the size of a complete disk and, if spec asks for it, its integrity in the manifest.
void CompleteLayer(const Context& ctx, NewArtifact& spec, int disk);

// A StagedArtifact is complete except for the name under which it will be published and, unless
// spec.flatten is set, for its disk. Its destructor removes the staged files.
struct StagedArtifact {
  NewArtifact spec;
  std::unique_ptr<base::Stage> stage;
  base::FileStamp upper;  // The stamp that the sandbox's disk had when the artifact was staged.

  // Returns the complete disk in the stage. Call only if spec.flatten is set.
  Disk WholeDisk() const;
};

// StageArtifact and PublishArtifact create an artifact in two steps, for a sandbox's qcow2 disk
// that is taken over rather than copied. StageArtifact does everything that takes long or is likely
// to fail: it checks the destination, creates the stage, reads the upper if its integrity is to be
// recorded, and writes the manifest. If spec.flatten is set, it also writes the upper out, with all
// its backing files, as one raw disk. The caller must ensure that nothing writes to the upper until
// PublishArtifact returns.
// Throws what CreateArtifact throws.
StagedArtifact StageArtifact(const Context& ctx, NewArtifact spec);
// Publishes the artifact. Unless the stage has the complete disk, hard links the former upper,
// whose path is sealed, into the artifact as its disk, or copies it if it cannot be linked. A
// failure leaves nothing of the artifact behind.
// Throws kSnapshotSandboxRunning if sealed is not the upper that was staged, or has changed since.
// Throws kSnapshotAlreadyExists as CreateArtifact does.
Artifact PublishArtifact(const Context& ctx, StagedArtifact staged,
                         const std::filesystem::path& sealed);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_CREATE_H_
