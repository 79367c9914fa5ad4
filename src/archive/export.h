// Writing snapshots into an archive.

#ifndef MSB_SRC_ARCHIVE_EXPORT_H_
#define MSB_SRC_ARCHIVE_EXPORT_H_

#include <filesystem>
#include <vector>

#include "msb/context.h"
#include "msb/snapshot.h"
#include "src/artifact/store.h"

namespace msb::archive {

struct ExportSpec {
  std::vector<artifact::Artifact> chain;  // Parents first; the last is the head. Not empty.
  std::filesystem::path cache_dir;        // Where images are.
  std::filesystem::path out;              // Replaced if it is a regular file.
  SnapshotExportOptions options;
};

// Writes the archive; it is on disk when this returns, and on failure nothing of it is left and out
// is as it was. Progress phase "export". kUnsupportedOperation: a snapshot that no archive can
// carry, or a chain of several generations. kSnapshotImageMissing. kSnapshotIntegrity: a file
// changed meanwhile, or an image file is damaged. kInvalidArgument: out is no regular file.
void ExportArchive(const Context& ctx, const ExportSpec& spec);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_EXPORT_H_
