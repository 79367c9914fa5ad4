// SPDX-License-Identifier: Apache-2.0
//
// Checks whether the disks that an archive carries can be booted after the import.

#ifndef MSB_SRC_ARCHIVE_IMPORT_BACKING_H_
#define MSB_SRC_ARCHIVE_IMPORT_BACKING_H_

#include <string>
#include <vector>

#include "src/archive/import.h"
#include "src/archive/incoming.h"

namespace msb::archive {

// Checks that the receiver has the snapshots that the inventory names, and that every qcow2 disk is
// backed by its parent's disk, in the archive or at the receiver, or by its image. If an image is
// neither in the archive nor in the cache, logs a warning, since the image may be added later.
// order has parents first. image_files are the image files of the archive.
// Throws kSnapshotNotFound if a snapshot is missing.
// Throws kSnapshotIntegrity if a disk names its parent's disk, but in a format other than the one
// that the parent's disk has.
// Throws kUnsupportedOperation if a disk is backed by anything else.
void CheckBacking(const ImportSpec& spec, const std::vector<IncomingSnapshot*>& order,
                  const std::vector<std::string>& needed,
                  const std::vector<std::string>& image_files);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMPORT_BACKING_H_
