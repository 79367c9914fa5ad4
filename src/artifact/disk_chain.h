// SPDX-License-Identifier: Apache-2.0
//
// A DiskChain represents the disk of a snapshot together with the files that the disk is backed by,
// each opened once. It is built once, and then verified, flattened, exported or booted.

#ifndef MSB_SRC_ARTIFACT_DISK_CHAIN_H_
#define MSB_SRC_ARTIFACT_DISK_CHAIN_H_

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "msb/context.h"
#include "msb/disk.h"
#include "src/artifact/integrity.h"
#include "src/artifact/store.h"
#include "src/base/file.h"
#include "src/disk/disk_image.h"

namespace msb::artifact {

// A DiskFile represents one file of a disk.
struct DiskFile {
  std::string digest = {};  // The digest of the snapshot or image that the file belongs to.
  std::string name = {};    // The name by which an overlay refers to it as its backing file.
  Disk disk = {};           // The path when it was opened, the format and the file system.
  LayerFile file = {};      // The file, open for reading.
  std::optional<Integrity> integrity = {};  // The recorded hash of the content, if any.
};

struct DiskChain {
  // The disk's own file first, each file backed by the next. Not empty.
  std::vector<DiskFile> files = {};

  // Returns the files that the disk is backed by, nearest first, in the form that backends expect.
  std::vector<BackingFile> Backing() const;
  // Returns true if the path of a file no longer leads to it, because its snapshot or image was
  // removed or replaced.
  bool IsReplaced() const;
  // Closes the files, for a caller that needs only their paths.
  void CloseFiles();
  // Moves the open files out of the chain and returns them, in the same order.
  std::vector<disk::ImageFile> TakeFiles() &&;
};

// Takes the file of one layer out of an opened artifact, and returns it with its description.
DiskFile FileOfLayer(OpenedArtifact& opened, std::size_t layer);
// Opens the file of a disk image.
// Throws kSnapshotImageMissing if it is not a regular file; the message says that origin needs it.
DiskFile OpenImageFile(const std::filesystem::path& path, const Image& image, DiskFormat format,
                       const std::string& fstype, const std::string& origin);

// Computes the integrity of each file that has a recorded integrity, and compares the two. Returns
// one result for each file, which is empty if the file has no recorded integrity. Progress phase
// "verify", with a total that covers all files.
// Throws kSnapshotIntegrity if a file differs from its record, or changed while it was read.
// Throws kUnsupportedOperation if an algorithm is unknown.
std::vector<std::optional<Integrity>> VerifyFiles(const Context& ctx,
                                                  const std::vector<DiskFile>& files);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_DISK_CHAIN_H_
