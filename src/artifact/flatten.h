// Writing the disk of an artifact, and all that it stands on, into one file.

#ifndef MSB_SRC_ARTIFACT_FLATTEN_H_
#define MSB_SRC_ARTIFACT_FLATTEN_H_

#include <filesystem>
#include <vector>

#include "msb/context.h"
#include "msb/vmm/backend.h"
#include "src/artifact/store.h"

namespace msb::artifact {

// backing: what the artifact's one layer stands on, the next one first. out is written aside,
// flushed and renamed over what is there. kInvalidArgument: what is there is no regular file.
// kSnapshotIntegrity: a file is damaged, or changed meanwhile.
void FlattenArtifact(const Context& ctx, const Artifact& artifact,
                     const std::vector<vmm::BackingFile>& backing, DiskFormat format,
                     const std::filesystem::path& out);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_FLATTEN_H_
