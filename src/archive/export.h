// SPDX-License-Identifier: Apache-2.0
//
// Writes snapshots into an archive.

#ifndef MSB_SRC_ARCHIVE_EXPORT_H_
#define MSB_SRC_ARCHIVE_EXPORT_H_

#include <filesystem>
#include <string>
#include <vector>

#include "msb/context.h"
#include "src/artifact/store.h"
#include "src/base/output_stream.h"

namespace msb::archive {

struct ExportSpec {
  std::vector<artifact::OpenedArtifact> chain;  // Parents first; the last is the head. Not empty.
  std::filesystem::path cache_dir;              // The directory of the image cache.
  // The archive to write. An existing regular file is replaced. The directory is created if it is
  // absent.
  std::filesystem::path out;
  // As in SnapshotExportOptions.
  bool with_parents = false;
  bool with_image = false;
  bool plain_tar = false;
  bool sparse = false;
  int level = 3;
  unsigned threads = 0;
  // The digests of snapshots that were left out and that the receiver must have. An archive in the
  // legacy layout cannot record them; Import then relies on the names of the disks' backing files.
  std::vector<std::string> needed = {};
};

// Writes the archive and flushes it to disk. A failure leaves nothing of the archive behind and
// spec.out as it was, with the exception that base::Stage::PublishFile documents. Progress phase
// "export".
// Throws kUnsupportedOperation if an archive cannot carry one of the snapshots, if the archive
// would exceed a limit of Import (limits.h), or if the snapshots are of several generations.
// Nothing has been written then. Throws kSnapshotImageMissing if a file of the image is missing.
// Throws kSnapshotNotFound as artifact::OpenLayer does.
// Throws kSnapshotIntegrity if a file changed while it was read, or an image file is damaged.
// Throws kInvalidArgument if spec.out does not name a file, is inside a snapshot, is one of the
// files to export, or exists and is not a regular file.
void ExportArchive(const Context& ctx, const ExportSpec& spec);
// Writes the archive to a stream instead of to spec.out, which only messages name. A failure may
// leave the beginning of the archive in the stream.
void ExportArchive(const Context& ctx, const ExportSpec& spec, base::OutputStream& stream);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_EXPORT_H_
