// SPDX-License-Identifier: Apache-2.0
//
// Writes a disk, with all its backing files, into one file.

#ifndef MSB_SRC_ARTIFACT_FLATTEN_H_
#define MSB_SRC_ARTIFACT_FLATTEN_H_

#include <vector>

#include "msb/context.h"
#include "msb/disk.h"
#include "msb/error.h"
#include "src/artifact/create.h"
#include "src/artifact/disk_chain.h"
#include "src/artifact/output_file.h"
#include "src/base/file.h"
#include "src/disk/disk_image.h"

namespace msb::artifact {

// Writes the complete disk, as a guest sees it, into the empty file target, and flushes that file.
// files has the disk's own file first, each file backed by the next.
// Throws an error of kind changed if one of the files changes meanwhile.
// Throws kSnapshotIntegrity if a file is damaged.
// Throws kUnsupportedOperation if a qcow2 feature is not supported.
void WriteDisk(const Context& ctx, std::vector<disk::ImageFile> files, DiskFormat format,
               int target, ErrorKind changed);

// Writes the disk into out, and publishes it.
// Throws kSnapshotIntegrity if a file is damaged, or changed while it was read.
void FlattenDisk(const Context& ctx, DiskChain chain, DiskFormat format, OutputFile& out);

// Writes the disk into the open directory stage as one raw file, and completes the layer of the new
// artifact.
// Throws kSnapshotIntegrity as FlattenDisk does.
void SquashDisk(const Context& ctx, DiskChain chain, NewArtifact& spec, int stage);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_FLATTEN_H_
