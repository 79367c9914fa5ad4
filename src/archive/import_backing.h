// SPDX-License-Identifier: Apache-2.0
//
// Checks whether disks that arrive can be booted by their receiver.

#ifndef MSB_SRC_ARCHIVE_IMPORT_BACKING_H_
#define MSB_SRC_ARCHIVE_IMPORT_BACKING_H_

#include <string>
#include <vector>

#include "src/archive/incoming.h"
#include "src/archive/intake.h"
#include "src/archive/source_words.h"

namespace msb::archive {

// Checks that the receiver has the snapshots in needed, which an archive's inventory names, and
// that every qcow2 disk is backed by its parent's disk, which arrives too or is at the receiver, or
// by its image. If an image does not arrive and is not in the cache, logs a warning, since the
// image may be added later. order has parents first. image_files are the image files that arrive.
// Throws kSnapshotNotFound if a snapshot is missing.
// Throws kSnapshotIntegrity if a disk names its parent's disk, but in a format other than the one
// that the parent's disk has.
// Throws kUnsupportedOperation if a disk is backed by anything else.
void CheckBacking(const IntakeSpec& spec, const SourceWords& words,
                  const std::vector<IncomingSnapshot*>& order,
                  const std::vector<std::string>& needed,
                  const std::vector<std::string>& image_files);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMPORT_BACKING_H_
