// SPDX-License-Identifier: Apache-2.0
//
// Imports snapshots from an archive that may be hostile.

#ifndef MSB_SRC_ARCHIVE_IMPORT_H_
#define MSB_SRC_ARCHIVE_IMPORT_H_

#include <filesystem>
#include <vector>

#include "msb/context.h"
#include "src/archive/intake.h"
#include "src/artifact/store.h"

namespace msb::archive {

// Imports the snapshots of an archive, which is a file, a pipe or a device, that the receiver does
// not have, and the image files of the archive, and flushes them to disk. A failure leaves nothing
// of them behind, unless publication had begun (Intake::Publish). Returns all snapshots of the
// archive with their current paths, parents first, the head last. Progress phase "import", in bytes
// of the archive.
// Throws kSnapshotIntegrity if the archive is damaged or hostile.
// Throws kSnapshotAlreadyExists if the receiver has the head, or a name is taken. In the first case
// the image files that the cache lacks are added nevertheless.
// Throws kSnapshotNotFound if find_backing does not find a snapshot that the inventory names as
// needed, or a snapshot that a disk is backed by and that is not in the archive.
// Throws kUnsupportedOperation if the archive needs a feature that this library does not support,
// or if a disk is backed by a file that is neither its parent's disk nor its image.
std::vector<artifact::Artifact> ImportArchive(const Context& ctx,
                                              const std::filesystem::path& archive,
                                              const IntakeSpec& spec);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMPORT_H_
