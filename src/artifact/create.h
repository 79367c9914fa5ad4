// Making an artifact from the disk of a sandbox.

#ifndef MSB_SRC_ARTIFACT_CREATE_H_
#define MSB_SRC_ARTIFACT_CREATE_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"
#include "src/base/file.h"

namespace msb::artifact {

// What a new artifact is made of.
struct NewArtifact {
  std::filesystem::path destination = {};      // Its parent must exist.
  std::filesystem::path upper = {};            // The file to copy, or to take over.
  std::vector<vmm::BackingFile> backing = {};  // Below a qcow2 upper, the next one first.
  bool flatten = false;    // Write a qcow2 upper out with these, whatever they are.
  Manifest manifest = {};  // Complete but for digest, and its one layer's size and integrity.
  std::optional<std::string> integrity_algorithm = {};  // What to record, if anything.
  bool force = false;                                   // Replace what is at the destination.
  // Called when the upper is copied, before the artifact is published; throws to prevent that.
  std::function<void()> confirm = {};
};

// Makes an artifact; it is on disk when this returns, and on failure nothing of it is left. A qcow2
// upper that stands on files of its own, and not on the manifest's parent or image, is written out
// with them as one raw disk. kSnapshotAlreadyExists; kSnapshotSandboxRunning: the upper changed
// while it was copied. kInvalidConfig: it stands on such a file, and backing is empty.
Artifact CreateArtifact(const Context& ctx, NewArtifact spec);

// The same in two steps, for an upper that is taken over and not copied. Describe completes the
// manifest, which takes reading the upper if its integrity is to be recorded.
struct DescribedArtifact {
  NewArtifact spec;
  std::string manifest_bytes;
  base::FileStamp stamp;  // Of the upper.
};
DescribedArtifact DescribeArtifact(const Context& ctx, NewArtifact spec);
// Makes the artifact, whose upper becomes another name of the file sealed: the described upper,
// which nobody writes to any more. kSnapshotSandboxRunning: it has changed since.
Artifact LinkArtifact(const Context& ctx, const DescribedArtifact& described,
                      const std::filesystem::path& sealed);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_CREATE_H_
