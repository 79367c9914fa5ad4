// Writing a disk, and all that it stands on, into one file.

#ifndef MSB_SRC_ARTIFACT_FLATTEN_H_
#define MSB_SRC_ARTIFACT_FLATTEN_H_

#include <filesystem>
#include <vector>

#include "msb/context.h"
#include "msb/error.h"
#include "msb/vmm/backend.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/disk/disk_image.h"

namespace msb::artifact {

// kSnapshotIntegrity: it is no regular file.
base::UniqueFd OpenBacking(const vmm::BackingFile& file);

// Writes all that a guest sees of a disk, its head first, into the empty file target, and flushes
// it. Throws an error of kind changed if a file is written to meanwhile. kSnapshotIntegrity: one is
// damaged.
void WriteDisk(const Context& ctx, std::vector<disk::ImageFile> files, DiskFormat format,
               int target, ErrorKind changed);

// backing: what the artifact's one layer stands on, the next one first. out is written aside,
// flushed and renamed over what is there. kInvalidArgument: what is there is no regular file.
// kSnapshotIntegrity: a file is damaged, or changed meanwhile.
void FlattenArtifact(const Context& ctx, const Artifact& artifact,
                     const std::vector<vmm::BackingFile>& backing, DiskFormat format,
                     const std::filesystem::path& out);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_FLATTEN_H_
