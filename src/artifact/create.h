// Making an artifact from the disk of a sandbox.

#ifndef MSB_SRC_ARTIFACT_CREATE_H_
#define MSB_SRC_ARTIFACT_CREATE_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "msb/context.h"
#include "src/artifact/store.h"

namespace msb::artifact {

// What a new artifact is made of.
struct NewArtifact {
  std::filesystem::path destination = {};  // Its parent must exist.
  std::filesystem::path upper = {};        // The file to copy.
  Manifest manifest = {};  // Complete but for digest, and its one layer's size and integrity.
  std::optional<std::string> integrity_algorithm = {};  // What to record, if anything.
  bool force = false;                                   // Replace what is at the destination.
  // Called when the upper is copied, before the artifact is published; throws to prevent that.
  std::function<void()> confirm = {};
};

// Makes an artifact; it is on disk when this returns, and on failure nothing of it is left.
// kSnapshotAlreadyExists; kSnapshotSandboxRunning: the upper changed while it was copied.
Artifact CreateArtifact(const Context& ctx, NewArtifact spec);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_CREATE_H_
