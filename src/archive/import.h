// Reading snapshots out of an archive that nobody vouches for.

#ifndef MSB_SRC_ARCHIVE_IMPORT_H_
#define MSB_SRC_ARCHIVE_IMPORT_H_

#include <filesystem>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"

namespace msb::archive {

// The most entries that an archive may have; a chain of 8,000 snapshots has 16,001.
inline constexpr std::size_t kMaxEntries = 1 << 14;

struct ImportSpec {
  std::filesystem::path archive;      // A file, a pipe or a device.
  std::filesystem::path destination;  // Where artifacts go; made if absent.
  std::filesystem::path cache_dir;    // Where images go.
};

// Imports all snapshots of an archive, and its image files; they are on disk when this returns, and
// on failure nothing of them is left. Returns the artifacts, parents first, the head last. Progress
// phase "import", in bytes of the archive. kSnapshotIntegrity: hostile or damaged input.
// kSnapshotAlreadyExists: the destination has one of them, or something of its name.
// kUnsupportedOperation: an archive that needs what this library does not know.
std::vector<artifact::Artifact> ImportArchive(const Context& ctx, const ImportSpec& spec);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_IMPORT_H_
