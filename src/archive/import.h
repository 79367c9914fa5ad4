// SPDX-License-Identifier: Apache-2.0
//
// Imports snapshots from an archive that may be hostile.

#ifndef MSB_SRC_ARCHIVE_IMPORT_H_
#define MSB_SRC_ARCHIVE_IMPORT_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"

namespace msb::archive {

// The most entries that an archive may have; a chain of 8,000 snapshots has 16,001.
inline constexpr std::size_t kMaxEntries = 1 << 14;
// The most image files that an archive may have. An OCI image has at most 127 layers, and a few
// more files.
inline constexpr std::size_t kMaxImageFiles = 1 << 11;

struct ImportSpec {
  std::filesystem::path archive;         // A file, a pipe or a device.
  std::filesystem::path destination;     // The directory for the artifacts; created if absent.
  std::filesystem::path cache_dir;       // The directory of the image cache.
  std::optional<std::string> name = {};  // Name of the head's directory. Default: its identity.

  using FindArtifact = std::function<std::optional<artifact::Artifact>(const std::string& id)>;
  // Returns the snapshot with this digest if the receiver has it, so that it is not imported again.
  // If find_present is null, a snapshot counts as present only if it is in the directory to which
  // it would be imported.
  FindArtifact find_present = {};
  // Returns the snapshot with this digest or snapshot id, by which a disk of the archive may be
  // backed, or nullopt if the receiver does not have it. If find_backing is null, the receiver has
  // no such snapshots.
  // Throws kSnapshotNotFound if a snapshot that the disk of this snapshot is backed by is missing.
  // Throws kIO if the receiver may have the snapshot but cannot read it.
  FindArtifact find_backing = {};
  // Receives warnings. May be null.
  std::function<void(std::string_view message)> log = {};
};

// Imports the snapshots of an archive that the receiver does not have, and the image files of the
// archive, and flushes them to disk. A failure leaves nothing of them behind. Returns all snapshots
// of the archive with their current paths, parents first, the head last. Progress phase "import",
// in bytes of the archive.
// Throws kSnapshotIntegrity if the archive is damaged or hostile.
// Throws kSnapshotAlreadyExists if the receiver has the head, or a name is taken.
// Throws kSnapshotNotFound if find_backing does not find a snapshot that the inventory names as
// needed, or a snapshot that a disk is backed by and that is not in the archive.
// Throws kUnsupportedOperation if the archive needs a feature that this library does not support,
// or if a disk is backed by a file that is neither its parent's disk nor its image.
std::vector<artifact::Artifact> ImportArchive(const Context& ctx, const ImportSpec& spec);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMPORT_H_
